//! What every file of a validator has in common: errors that say where, and writes that are whole or not
//! at all.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1, if the fault has one.
    pub line: Option<usize>,
    /// Column, from 1, if the fault has one.
    pub column: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

impl FileError {
    /// A fault of the file as a whole.
    pub fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self { path: path.into(), line: None, column: None, reason: reason.to_string() }
    }

    /// A fault of one line.
    pub fn at_line(path: &Path, line: usize, reason: impl fmt::Display) -> Self {
        Self { line: Some(line), ..Self::new(path, reason) }
    }

    /// A fault of the byte at `offset` of `text`.
    pub(crate) fn at_offset(path: &Path, text: &str, offset: usize, reason: impl fmt::Display) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Self { line: Some(line), column: Some(column), ..Self::new(path, reason) }
    }

    pub(crate) fn json(path: &Path, error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = text.strip_suffix(&place).unwrap_or(&text);
        let at = |value: usize| (value > 0).then_some(value);
        Self { line: at(error.line()), column: at(error.column()), ..Self::new(path, reason) }
    }

    pub(crate) fn toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        match error.span() {
            Some(span) => Self::at_offset(path, text, span.start, error.message()),
            None => Self::new(path, error.message()),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for FileError {}

/// Reads a file of text.
pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        FileError::at_offset(path, &text, valid, "not UTF-8 text")
    })
}

/// Reads a file.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|error| FileError::new(path, format_args!("cannot be read: {error}")))
}

/// Writes a file beside its place, makes it durable and moves it there. A secret file can be read by its
/// owner alone from the moment it exists.
pub(crate) fn write_whole(path: &Path, secret: bool, contents: &[u8]) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let write = || -> io::Result<()> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
        let mut file = options.open(&beside)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    let _ = secret;
    write().map_err(|error| FileError::new(path, format_args!("cannot be written: {error}")))
}

/// Hexadecimal digits of `bytes`.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of hexadecimal digits.
///
/// # Errors
/// What is wrong; the message holds none of the digits, so that secrets can be read with it.
pub fn from_hex(text: &str) -> Result<Vec<u8>, &'static str> {
    if !text.len().is_multiple_of(2) {
        return Err("an odd number of hexadecimal digits");
    }
    let digit = |byte: u8| (byte as char).to_digit(16).ok_or("not hexadecimal");
    text.as_bytes().chunks_exact(2).map(|pair| Ok((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where() {
        let path = Path::new("a.toml");
        let text = "one\nzwei \u{e4} x\n";
        let error = FileError::at_offset(path, text, text.find('x').unwrap(), "bad");
        assert_eq!(error.to_string(), "a.toml:2:8: bad");
        assert_eq!(FileError::new(path, "gone").to_string(), "a.toml: gone");
        assert_eq!(FileError::at_line(path, 7, "bad").to_string(), "a.toml:7: bad");
    }

    #[test]
    fn hexadecimal_returns() {
        assert_eq!(from_hex(&to_hex(&[0, 1, 0xab, 0xff])), Ok(vec![0, 1, 0xab, 0xff]));
        assert!(from_hex("abc").is_err());
        assert!(from_hex("zz").is_err());
        assert!(from_hex("\u{e9}").is_err());
    }
}
