//! Where programs of this machine send actions to a validator: the `submit` key of its configuration, over TCP on loopback.
//!
//! A connection begins with one byte that names its lane, 0 for rescues and 1 for trades, and carries actions of that
//! lane only: so on the wire, too, no flood of trades stands in front of a rescue. After that, everything is a frame:
//! its length as four bytes, big endian, and
//!
//! | frame | length | meaning |
//! | --- | --- | --- |
//! | an id | 32 | what became of that submission? |
//! | an encoded signed action | all others, at most [`MAX_FRAME_BYTES`] | take it |
//!
//! Each frame is answered once, in order, and what was sent over a connection of rescues is told again when the chain has
//! answered it. An answer has [`ANSWER_BYTES`]: whether it is told again (1) or answers a frame (0), the state, eight
//! bytes of height if the state has one (big endian), and the id. The states:
//!
//! | byte | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | state | received | pooled | included | final, done | final, refused | refused | shed | expired | unknown | rationed, with blocks to wait in place of a height |
//!
//! They are those of [`submissions`](seawall_chain::submissions). What has no room is answered as shed, without an id.
//!
//! | limit | what happens at it |
//! | --- | --- |
//! | [`MAX_CONNECTIONS`] of a lane | one more is closed |
//! | [`MAX_UNNAMED`] connections that have not named their lane, for [`HELLO`] at most | one more is closed |
//! | [`MAX_FRAME_BYTES`], an action that does not decode, one of the other lane | the connection is closed |
//! | [`MAX_ANSWERS`] that the other side has not read | the connection is closed |
//! | [`MAX_TOLD`] rescues of a connection that the chain has not answered | of one more it is not told; it can ask |
//! | a connection's share of a lane's queue | shed: see [`ingress`](seawall_chain::ingress) |
//!
//! Nobody is asked who they are, so it listens on loopback only.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use seawall_chain::{
    app::Monitor,
    block::Block,
    ingress::Submitter,
    machine::{Answer as Answered, Step},
    mempool::action_digest,
    submissions::{State, SubmissionId},
};
use seawall_types::{AccountId, Digest, Height, Lane, Nonce, SignedAction};
use std::{
    collections::BTreeMap,
    io::{self, BufReader, BufWriter, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Connections of a lane.
pub const MAX_CONNECTIONS: usize = 64;
/// Connections that have not named their lane yet.
pub const MAX_UNNAMED: usize = 16;
/// How long a connection may take to name its lane.
pub const HELLO: Duration = Duration::from_secs(5);
/// Bytes of a frame: no action is larger.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// Answers of a connection that wait to be sent.
pub const MAX_ANSWERS: usize = 16_384;
/// Rescues of a connection that it will be told of.
pub const MAX_TOLD: usize = 4_096;
/// Bytes of an answer.
pub const ANSWER_BYTES: usize = 42;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the chain has answered since; otherwise it answers a frame.
    pub told: bool,
    /// Its byte: see the module.
    pub state: u8,
    /// Of the block, if the state has one.
    pub height: Height,
    /// Of the submission; zeros if it has none.
    pub id: SubmissionId,
}

/// The byte of a final action that did what it should.
pub const DONE: u8 = 3;
/// The byte of a final action that was answered with a refusal.
pub const FINAL_REFUSED: u8 = 4;
/// The byte of an action that was refused here.
pub const REFUSED: u8 = 5;
/// The byte of what there was no room for.
pub const SHED: u8 = 6;

impl Answer {
    fn new(told: bool, id: SubmissionId, state: State) -> Self {
        let (state, height) = match state {
            State::Received => (0, Height(0)),
            State::Pooled => (1, Height(0)),
            State::Included { height } => (2, height),
            State::Final { height, refusal: None } => (DONE, height),
            State::Final { height, refusal: Some(_) } => (FINAL_REFUSED, height),
            State::Refused(_) => (REFUSED, Height(0)),
            State::Shed => (SHED, Height(0)),
            State::Expired => (7, Height(0)),
            State::Unknown => (8, Height(0)),
            State::Rationed { blocks } => (9, Height(blocks)),
        };
        Self { told, state, height, id }
    }

    /// As sent.
    pub fn encode(&self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        bytes[0] = u8::from(self.told);
        bytes[1] = self.state;
        bytes[2..10].copy_from_slice(&self.height.get().to_be_bytes());
        bytes[10..].copy_from_slice(&self.id.0);
        bytes
    }

    /// As received.
    pub fn decode(bytes: &[u8; ANSWER_BYTES]) -> Self {
        let (mut height, mut id) = ([0; 8], [0; 32]);
        height.copy_from_slice(&bytes[2..10]);
        id.copy_from_slice(&bytes[10..]);
        let height = Height(u64::from_be_bytes(height));
        Self { told: bytes[0] == 1, state: bytes[1], height, id: Digest(id) }
    }
}

/// What begins a connection of this lane.
pub const fn hello(lane: Lane) -> u8 {
    match lane {
        Lane::Rescue => 0,
        Lane::Trade => 1,
    }
}

/// Writes a frame.
///
/// # Errors
/// If the other side is gone.
pub fn send(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(frame)
}

/// A rescue and the connection that sent it: two may send the same.
type Key = (AccountId, Nonce, u64);

/// A program's end of a connection.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Opens a connection for a lane. Whoever waits for an answer for longer than `patience` gets an error.
    ///
    /// # Errors
    /// If nobody listens there.
    pub fn open(address: SocketAddr, lane: Lane, patience: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&[hello(lane)])?;
        Ok(Self { stream })
    }

    /// Sends an action.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn submit(&mut self, action: &SignedAction) -> io::Result<()> {
        send(&mut self.stream, &action.encode())
    }

    /// Asks what became of a submission.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn ask(&mut self, id: SubmissionId) -> io::Result<()> {
        send(&mut self.stream, &id.0)
    }

    /// The next answer.
    ///
    /// # Errors
    /// If there is none in time, or the connection is closed.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut bytes = [0; ANSWER_BYTES];
        self.stream.read_exact(&mut bytes)?;
        Ok(Answer::decode(&bytes))
    }
}

/// Who is told of a rescue.
struct Told {
    id: SubmissionId,
    expiry: Height,
    answers: SyncSender<Answer>,
    held: Arc<AtomicUsize>,
}

impl Told {
    fn tell(self, state: State) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        // A connection that does not read is closed when it is answered next.
        let _ = self.answers.try_send(Answer::new(true, self.id, state));
    }
}

#[derive(Default)]
struct Shared {
    told: Mutex<BTreeMap<Key, Told>>,
    connections: [AtomicUsize; 2],
    unnamed: AtomicUsize,
    next: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Told>> {
        self.told.lock().expect("a thread panicked while it held the front")
    }
}

/// One of a bounded number, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let taken = count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < most).then_some(held + 1));
        // Not built where there is none: what is built is given back.
        taken.is_ok().then(|| Self(count))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where actions arrive. Its clones are the same.
#[derive(Clone, Default)]
pub struct Front {
    shared: Arc<Shared>,
}

/// Takes the address, so that a process that cannot have it ends before it starts anything.
///
/// # Errors
/// If it is not on loopback, or something else has it.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    ensure!(
        address.ip().is_loopback(),
        "submit: {address} is not a loopback address; nobody is asked who they are"
    );
    TcpListener::bind(address)
        .with_context(|| format!("cannot take actions on {address}; is another process there?"))
}

impl Front {
    /// Takes connections on a thread until the process ends.
    ///
    /// # Errors
    /// If there is no thread.
    pub fn start(&self, listener: TcpListener, submitter: Submitter) -> io::Result<()> {
        let front = self.clone();
        thread::Builder::new().name("front".into()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => front.accept(stream, &submitter),
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a connection");
                        // Out of files, most likely: it would fail again at once.
                        thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        })?;
        Ok(())
    }

    fn accept(&self, stream: TcpStream, submitter: &Submitter) {
        let (front, submitter) = (self.clone(), submitter.clone());
        // Whether there is a place is asked here, so that there are never more threads than places.
        let Some(unnamed) = Place::take(&self.shared.unnamed, MAX_UNNAMED) else {
            tracing::debug!("too many connections have not named their lane");
            return;
        };
        std::mem::forget(unnamed);
        let spawned = thread::Builder::new().name("front-connection".into()).spawn(move || {
            let unnamed = Place(&front.shared.unnamed);
            if let Err(error) = front.serve(&stream, &submitter, unnamed) {
                tracing::debug!(%error, "a connection ended");
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a connection");
            drop(Place(&self.shared.unnamed));
        }
    }

    fn serve(&self, stream: &TcpStream, submitter: &Submitter, unnamed: Place<'_>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HELLO))?;
        let mut reader = BufReader::with_capacity(MAX_FRAME_BYTES, stream);
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        let lane = match byte[0] {
            0 => Lane::Rescue,
            1 => Lane::Trade,
            other => return Err(io::Error::other(format!("{other} is no lane"))),
        };
        let Some(_place) = Place::take(&self.shared.connections[usize::from(hello(lane))], MAX_CONNECTIONS)
        else {
            return Err(io::Error::other("too many connections of this lane"));
        };
        drop(unnamed);
        stream.set_read_timeout(None)?;
        let (answers, waiting) = sync_channel(MAX_ANSWERS);
        let sink = stream.try_clone()?;
        let writer = thread::Builder::new().name("front-answers".into()).spawn(move || {
            if let Err(error) = answer(&sink, &waiting) {
                tracing::debug!(%error, "a connection does not take its answers");
            }
            let _ = sink.shutdown(Shutdown::Both);
        })?;
        // The submitter's own tools are connection 0.
        let connection = 1 + self.shared.next.fetch_add(1, Ordering::Relaxed);
        let read = self.read(&mut reader, lane, connection, submitter, &answers);
        self.shared.lock().retain(|(.., of), _| *of != connection);
        drop(answers);
        // What nobody reads would keep the writer, and its thread, for good.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = writer.join();
        read
    }

    fn read(
        &self,
        reader: &mut impl Read,
        lane: Lane,
        connection: u64,
        submitter: &Submitter,
        answers: &SyncSender<Answer>,
    ) -> io::Result<()> {
        let held = Arc::new(AtomicUsize::new(0));
        let mut frame = vec![0; MAX_FRAME_BYTES];
        loop {
            let mut length = [0; 4];
            if let Err(error) = reader.read_exact(&mut length) {
                let closed = error.kind() == io::ErrorKind::UnexpectedEof;
                return if closed { Ok(()) } else { Err(error) };
            }
            let length = u32::from_be_bytes(length) as usize;
            let Some(frame) = frame.get_mut(..length) else {
                return Err(io::Error::other(format!(
                    "a frame of {length} bytes; at most {MAX_FRAME_BYTES}"
                )));
            };
            reader.read_exact(frame)?;
            let answer = if length == Digest::LEN {
                let mut id = Digest::default();
                id.0.copy_from_slice(frame);
                Answer::new(false, id, submitter.state(&id))
            } else {
                let action = SignedAction::decode(Bytes::copy_from_slice(frame)).map_err(io::Error::other)?;
                if action.action.lane() != lane {
                    return Err(io::Error::other("an action of the other lane"));
                }
                self.submit(action, connection, submitter, answers, &held)
            };
            answers.try_send(answer).map_err(io::Error::other)?;
        }
    }

    fn submit(
        &self,
        action: SignedAction,
        connection: u64,
        submitter: &Submitter,
        answers: &SyncSender<Answer>,
        held: &Arc<AtomicUsize>,
    ) -> Answer {
        let (lane, name, expiry) =
            (action.action.lane(), (action.account, action.nonce, connection), action.expiry);
        let Ok(id) = submitter.submit_from(connection, action) else {
            return Answer::new(false, Digest::default(), State::Shed);
        };
        if lane == Lane::Rescue && held.load(Ordering::Relaxed) < MAX_TOLD {
            held.fetch_add(1, Ordering::Relaxed);
            let told = Told { id, expiry, answers: answers.clone(), held: held.clone() };
            if let Some(before) = self.shared.lock().insert(name, told) {
                before.held.fetch_sub(1, Ordering::Relaxed);
            }
        }
        // It may have been answered before anybody could be told.
        let state = submitter.state(&id);
        if state.is_answered()
            && let Some(told) = self.shared.lock().remove(&name)
        {
            told.held.fetch_sub(1, Ordering::Relaxed);
        }
        Answer::new(false, id, state)
    }
}

/// Sends answers as they come, many at once if they do.
fn answer(sink: &TcpStream, waiting: &Receiver<Answer>) -> io::Result<()> {
    let mut writer = BufWriter::new(sink);
    while let Ok(first) = waiting.recv() {
        writer.write_all(&first.encode())?;
        while let Ok(next) = waiting.try_recv() {
            writer.write_all(&next.encode())?;
        }
        writer.flush()?;
    }
    Ok(())
}

impl Monitor for Front {
    fn finalized(&self, block: &Block, _: Digest, step: &Step) {
        let height = block.header.height;
        let mut told = self.shared.lock();
        if told.is_empty() {
            return;
        }
        let mut answered = Vec::new();
        for (action, answer) in block.body.actions.iter().zip(&step.answers) {
            let (account, nonce) = (action.account, action.nonce);
            let of = told.range((account, nonce, 0)..=(account, nonce, u64::MAX));
            let keys: Vec<Key> = of.map(|(key, _)| *key).collect();
            let who = keys.iter().filter_map(|key| told.remove(key));
            answered.extend(who.map(|who| (who, action, answer)));
        }
        let over: Vec<_> =
            told.iter().filter(|(_, who)| who.expiry <= height).map(|(name, _)| *name).collect();
        let over: Vec<Told> = over.iter().filter_map(|name| told.remove(name)).collect();
        drop(told);
        for (who, action, answer) in answered {
            let refusal = match answer {
                Answered::Done(_) => None,
                Answered::Refused(refusal) => Some(*refusal),
            };
            // Of two actions with one nonce the other one is final.
            let state = if action_digest(action) == who.id {
                State::Final { height, refusal }
            } else {
                State::Refused(seawall_types::Refusal::NonceUsed)
            };
            who.tell(state);
        }
        for who in over {
            who.tell(State::Expired);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_as_it_was_written() {
        let states = [
            State::Received,
            State::Pooled,
            State::Included { height: Height(7) },
            State::Final { height: Height(u64::MAX), refusal: None },
            State::Final { height: Height(9), refusal: Some(seawall_types::Refusal::NonceUsed) },
            State::Refused(seawall_types::Refusal::NonceUsed),
            State::Shed,
            State::Expired,
            State::Unknown,
        ];
        for (byte, state) in (0..).zip(states) {
            for told in [false, true] {
                let answer = Answer::new(told, Digest([9; 32]), state);
                assert_eq!((Answer::decode(&answer.encode()), answer.state), (answer, byte));
            }
        }
    }

    #[test]
    fn places_are_given_back_and_there_are_no_more_of_them() {
        let count = AtomicUsize::new(0);
        let first = Place::take(&count, 2).unwrap();
        let second = Place::take(&count, 2).unwrap();
        assert!(Place::take(&count, 2).is_none());
        drop(first);
        assert!(Place::take(&count, 2).is_some());
        drop(second);
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_loopback_is_listened_on() {
        let error = bind("0.0.0.0:0".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("not a loopback address"), "{error}");
        bind("127.0.0.1:0".parse().unwrap()).unwrap();
    }
}
