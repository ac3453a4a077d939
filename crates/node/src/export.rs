//! A chain in one file: every final block with its certificate.
//!
//! ```text
//! "SEAWALL\0"  version u32  chain id u64  digest of block 0 [32]  last height u64
//! for each height from 1:  length u32, block   length u32 (0: none), certificate
//! SHA-256 of everything before [32]
//! ```
//!
//! Numbers are big-endian. Blocks are as they travel between validators. The checksum finds damage; what
//! makes the file trustworthy is the group key in the genesis.

use crate::{
    files::FileError,
    offline::{ToolError, guarded, on_chain, runner},
    verify::{Progress, Verified, VerifyError},
};
use commonware_codec::{Copying, Decode as _, DecodeExt as _, Encode as _};
use commonware_consensus::BoundedBlock as _;
use commonware_cryptography::{Digestible as _, Hasher as _, Sha256};
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _};
use commonware_storage::archive::Archive as _;
use commonware_utils::sys_rng;
use seawall_chain::{
    archives::{self, Certificate},
    audit::Auditor,
    block::{Block, from_consensus},
    engine::DEFAULT_PREFIX,
    genesis::Genesis,
    store::{self, StateCommitment},
};
use seawall_types::{Digest, Height};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Version of the format that this crate writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"SEAWALL\0";
const HEADER_BYTES: usize = 8 + 4 + 8 + Digest::LEN + 8;
const MAX_CERTIFICATE_BYTES: usize = 4_096;
/// Blocks between two points to which an import is durable.
const CHECKPOINT: u64 = 1_024;
const BUFFER: usize = 1 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Height of the last block.
    pub height: Height,
    /// Bytes of the file.
    pub bytes: u64,
    /// The file's last 32 bytes: SHA-256 of everything before.
    pub sha256: Digest,
}

/// Writes the final blocks of a data directory to `file`, which must not exist.
///
/// # Errors
/// If the directory cannot be used or read, or the file cannot be written.
pub fn export(
    directory: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
    file: &Path,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Exported, ToolError> {
    let fault = |error: io::Error| ToolError::from(FileError::new(file, error));
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = file.with_file_name(name);
    if file.exists() {
        return Err(FileError::new(file, "exists already").into());
    }
    let exported = on_chain(directory, genesis, commitment, async |chain| {
        let last = chain.complete()?;
        let out = OpenOptions::new().write(true).create(true).truncate(true).open(&beside).map_err(fault)?;
        let mut out = Hashed::new(BufWriter::with_capacity(BUFFER, out));
        let origin = chain.origin;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(MAGIC);
        header.extend(FORMAT.to_be_bytes());
        header.extend(genesis.chain().get().to_be_bytes());
        header.extend(origin.0);
        header.extend(last.get().to_be_bytes());
        out.put(&header).map_err(fault)?;
        for height in 1..=last.get() {
            let (block, certificate) = chain.block(Height(height)).await?;
            out.put_record(&block.encode()).map_err(fault)?;
            let certificate = certificate.map(|certificate| certificate.encode().to_vec());
            out.put_record(&certificate.unwrap_or_default()).map_err(fault)?;
            progress(Progress { height: Height(height), last });
        }
        let sha256 = out.digest();
        out.put(&sha256.0).map_err(fault)?;
        let bytes = out.bytes;
        let out = out.inner.into_inner().map_err(|error| fault(error.into_error()))?;
        out.sync_all().map_err(fault)?;
        fs::rename(&beside, file).map_err(fault)?;
        Ok(Exported { height: last, bytes, sha256 })
    });
    if exported.is_err() {
        let _ = fs::remove_file(&beside);
    }
    exported
}

/// Verifies an exported chain block by block and builds a new data directory from it: archives, and the
/// state of the last block. A validator that starts in it goes on from there.
///
/// The directory holds no votes. A validator that has voted before must not go on from an import while the
/// views that it voted in are still open: wait until the others have made a later block final.
///
/// # Errors
/// If the file cannot be read, is damaged or of another chain, the directory exists, or a block diverges:
/// the first one. Then no directory is left behind.
pub fn import(
    file: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
    directory: &Path,
    progress: impl FnMut(Progress) + Send,
) -> Result<Verified, VerifyError> {
    let origin = from_consensus(genesis.block(commitment).digest());
    let last = check_file(file, genesis, origin)?;
    let io = |path: &Path, error: io::Error| VerifyError::from(ToolError::from(FileError::new(path, error)));
    let empty = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if directory.exists() && !empty {
        let reason = "exists and is not empty; an import builds a new directory";
        return Err(ToolError::from(FileError::new(directory, reason)).into());
    }
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".importing");
    let beside: PathBuf = directory.with_file_name(name);
    if beside.exists() {
        let reason = "left by an import that was interrupted, or that still runs; remove it first";
        return Err(ToolError::from(FileError::new(&beside, reason)).into());
    }
    fs::create_dir_all(&beside).map_err(|error| io(&beside, error))?;
    let built = guarded(
        || build(file, last, genesis, commitment, &beside, progress),
        |message| ToolError::Failed(format!("building the directory failed: {message}")).into(),
    );
    let verified = built.and_then(|verified| {
        if empty {
            fs::remove_dir(directory).map_err(|error| io(directory, error))?;
        }
        fs::rename(&beside, directory).map_err(|error| io(directory, error))?;
        Ok(verified)
    });
    if verified.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    verified
}

fn build(
    file: &Path,
    last: Height,
    genesis: &Genesis,
    commitment: &StateCommitment,
    directory: &Path,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Verified, VerifyError> {
    let mut records = Records::open(file)?;
    runner(directory).start(|context| async move {
        let storage = |error: &dyn std::fmt::Display| {
            ToolError::Failed(format!("{} cannot be written: {error}", directory.display()))
        };
        let mut rng = sys_rng();
        let page_cache = store::page_cache();
        let mut blocks = archives::blocks(context.child("blocks"), DEFAULT_PREFIX, page_cache.clone())
            .await
            .map_err(|error| storage(&error))?;
        let mut certificates =
            archives::certificates(context.child("certificates"), DEFAULT_PREFIX, page_cache)
                .await
                .map_err(|error| storage(&error))?;
        let mut auditor =
            Auditor::new(context.child("audit"), DEFAULT_PREFIX, genesis, commitment, Sequential).await?;
        let origin = genesis.block(commitment);
        blocks = blocks.put(0, origin.digest(), &Arc::new(origin)).await.map_err(|error| storage(&error))?;
        for height in 1..=last.get() {
            let (block, certificate) = records.next(Height(height))?;
            let digest = block.digest();
            auditor.step(&mut rng, &block, certificate.clone()).await?;
            let block = Arc::new(block);
            blocks = blocks.put(height, digest, &block).await.map_err(|error| storage(&error))?;
            if let Some(certificate) = certificate {
                certificates =
                    certificates.put(height, digest, &certificate).await.map_err(|error| storage(&error))?;
            }
            if height.is_multiple_of(CHECKPOINT) {
                blocks = blocks.sync().await.map_err(|error| storage(&error))?;
                certificates = certificates.sync().await.map_err(|error| storage(&error))?;
                auditor.checkpoint(&mut rng).await?;
            }
            progress(Progress { height: Height(height), last });
        }
        blocks.sync().await.map_err(|error| storage(&error))?;
        certificates.sync().await.map_err(|error| storage(&error))?;
        let audited = auditor.finish(&mut rng).await?;
        if last > Height(0) {
            archives::mark_processed(context.child("processed"), DEFAULT_PREFIX, last)
                .await
                .map_err(|error| storage(&error))?;
        }
        Ok(Verified::new(&audited, audited.height))
    })
}

/// Reads a whole file once: what it is, whose, and whether it is as it was written. Returns its last height.
fn check_file(file: &Path, genesis: &Genesis, origin: Digest) -> Result<Height, ToolError> {
    let fault = |reason: &dyn std::fmt::Display| ToolError::from(FileError::new(file, reason));
    let input = File::open(file).map_err(|error| fault(&format_args!("cannot be read: {error}")))?;
    let length = input.metadata().map_err(|error| fault(&error))?.len();
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut header = [0; HEADER_BYTES];
    match input.read_exact(&mut header) {
        Ok(()) if header.starts_with(&MAGIC) => {}
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(fault(&error)),
        _ => return Err(fault(&"not an exported chain")),
    }
    let fields = parse_header(&header);
    if fields.format != FORMAT {
        let reason = format!("format {} is not known; this version reads format {FORMAT}", fields.format);
        return Err(fault(&reason));
    }
    if fields.chain != genesis.chain().get() || fields.origin != origin {
        return Err(fault(&format_args!(
            "is of another chain: chain {}, genesis block {}; the genesis file has chain {}, block {origin}",
            fields.chain,
            fields.origin,
            genesis.chain()
        )));
    }
    let Some(mut left) = length.checked_sub((HEADER_BYTES + Digest::LEN) as u64) else {
        return Err(fault(&"is cut short"));
    };
    let mut hasher = Sha256::default();
    hasher.update(&header);
    let mut chunk = vec![0; BUFFER];
    while left > 0 {
        let size = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        input.read_exact(&mut chunk[..size]).map_err(|error| fault(&error))?;
        hasher.update(&chunk[..size]);
        left -= size as u64;
    }
    let mut trailer = Digest::default();
    input.read_exact(&mut trailer.0).map_err(|error| fault(&error))?;
    let found = from_consensus(hasher.finalize().1);
    if found != trailer {
        return Err(fault(&format_args!(
            "checksum mismatch: SHA-256 is {found}, the file ends with {trailer}; it is cut short or damaged"
        )));
    }
    Ok(fields.last)
}

struct Fields {
    format: u32,
    chain: u64,
    origin: Digest,
    last: Height,
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Fields {
    fn take<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&header[at..at + N]);
        bytes
    }
    Fields {
        format: u32::from_be_bytes(take(header, 8)),
        chain: u64::from_be_bytes(take(header, 12)),
        origin: Digest(take(header, 20)),
        last: Height(u64::from_be_bytes(take(header, 20 + Digest::LEN))),
    }
}

/// The records of a file, in order.
struct Records {
    path: PathBuf,
    input: BufReader<File>,
}

impl Records {
    fn open(path: &Path) -> Result<Self, ToolError> {
        let fault = |error: io::Error| ToolError::from(FileError::new(path, error));
        let mut input = BufReader::with_capacity(BUFFER, File::open(path).map_err(fault)?);
        input.read_exact(&mut [0; HEADER_BYTES]).map_err(fault)?;
        Ok(Self { path: path.into(), input })
    }

    fn next(&mut self, height: Height) -> Result<(Block, Option<Certificate>), ToolError> {
        let path = self.path.clone();
        let fault = |what: &str, reason: &dyn std::fmt::Display| {
            ToolError::from(FileError::new(&path, format_args!("{what} of height {height}: {reason}")))
        };
        let bytes = self.record(Block::max_encode_size(&())).map_err(|error| fault("block", &error))?;
        let block = Block::decode(Copying(&bytes)).map_err(|error| fault("block", &error))?;
        let bytes = self.record(MAX_CERTIFICATE_BYTES).map_err(|error| fault("certificate", &error))?;
        if bytes.is_empty() {
            return Ok((block, None));
        }
        // A threshold certificate has one size: it needs no bounds to be decoded.
        let certificate =
            Certificate::decode_cfg(Copying(&bytes), &()).map_err(|error| fault("certificate", &error))?;
        Ok((block, Some(certificate)))
    }

    fn record(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > max {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("{length} bytes, at most {max}")));
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A writer that hashes what passes.
struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::default(), bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.inner.write_all(bytes)
    }

    fn put_record(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        self.put(&length.to_be_bytes())?;
        self.put(bytes)
    }

    fn digest(&mut self) -> Digest {
        from_consensus(std::mem::take(&mut self.hasher).finalize().1)
    }
}
