//! The data directory: one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// Name of the lock file. No partition can have it: partitions are lower-case and have no dot.
pub const LOCK_FILE: &str = "LOCK";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Nothing there.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// Another process has it.
    #[error("{directory} is in use by {holder}; stop it first, or work on a copy of the directory")]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Who said that it has it.
        holder: String,
    },
    /// The operating system refuses.
    #[error("{path}: {error}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Its answer.
        error: std::io::Error,
    },
}

/// The right to use a data directory, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Locks a directory, creating it first if it does not exist.
    ///
    /// # Errors
    /// If another process has it or the lock file cannot be opened.
    pub fn create(directory: &Path) -> Result<Self, DirectoryError> {
        fs::create_dir_all(directory).map_err(|error| io(directory, error))?;
        Self::acquire(directory)
    }

    /// Locks a directory that must exist.
    ///
    /// # Errors
    /// If it does not exist, another process has it, or the lock file cannot be opened.
    pub fn acquire(directory: &Path) -> Result<Self, DirectoryError> {
        if !directory.is_dir() {
            return Err(DirectoryError::Missing(directory.into()));
        }
        let path = directory.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io(&path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = file.read_to_string(&mut holder);
                let holder = match read {
                    Ok(_) if !holder.trim().is_empty() => holder.trim().to_owned(),
                    _ => "another process".to_owned(),
                };
                return Err(DirectoryError::InUse { directory: directory.into(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(io(&path, error)),
        }
        // Who holds it, for the message above; the lock itself is the operating system's.
        let note = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "process {}", std::process::id())
        };
        let mut note = note;
        note().map_err(|error| io(&path, error))?;
        Ok(Self { file })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

fn io(path: &Path, error: std::io::Error) -> DirectoryError {
    DirectoryError::Io { path: path.into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::acquire(directory.path()).unwrap();
        let error = DirectoryLock::acquire(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(lock);
        DirectoryLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("nothing");
        assert!(matches!(DirectoryLock::acquire(&missing), Err(DirectoryError::Missing(_))));
        assert!(!missing.exists());
        DirectoryLock::create(&missing).unwrap();
    }
}
