//! What can go wrong, in a sentence, and how to mend it.

use std::fmt;
use std::path::Path;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error to show to a person.
#[derive(Debug)]
pub enum Error {
    /// What was asked for means nothing, or cannot be accounted for.
    Usage(Told),
    /// A ledger is damaged or was edited; a dataset is not what was declared.
    Data(Told),
    /// The privacy budget does not allow it.
    Budget(Told),
    /// The system failed: a file, or its random numbers.
    System(Told),
}

/// What went wrong, and how to mend it.
#[derive(Debug)]
pub struct Told {
    pub message: String,
    pub hint: Option<String>,
}

impl Told {
    fn new(message: impl Into<String>) -> Self {
        Told {
            message: message.into(),
            hint: None,
        }
    }
}

impl Error {
    /// What was asked for means nothing.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(Told::new(message))
    }

    /// A file that cannot be used.
    pub fn data(message: impl Into<String>) -> Self {
        Error::Data(Told::new(message))
    }

    /// A step or a run that the budget does not allow.
    pub fn budget(message: impl Into<String>) -> Self {
        Error::Budget(Told::new(message))
    }

    /// Anything else.
    pub fn other(message: impl Into<String>) -> Self {
        Error::System(Told::new(message))
    }

    /// An input or output error at `path`; a full disk gets its own hint.
    pub fn io(doing: &str, path: &Path, error: std::io::Error) -> Self {
        let this = Error::other(format!("cannot {doing} {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                this.hint("free some space on that disk and run the same command again; finished stages are kept")
            }
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => this.hint("check the path"),
            std::io::ErrorKind::PermissionDenied => this.hint("check who owns the path and its permissions"),
            std::io::ErrorKind::ReadOnlyFilesystem => this.hint("choose a folder on a disk that can be written"),
            _ => this,
        }
    }

    /// Adds the one line that says how to mend it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.told_mut().hint = Some(hint.into());
        self
    }

    /// The same, of a ledger beside the run's own.
    pub(crate) fn of(mut self, ledger: &std::path::Path) -> Self {
        let told = self.told_mut();
        told.message = format!(
            "{}, whose dataset shares records with this one: {}",
            ledger.display(),
            told.message
        );
        self
    }

    /// What it says.
    pub fn told(&self) -> &Told {
        match self {
            Error::Usage(told) | Error::Data(told) | Error::Budget(told) | Error::System(told) => told,
        }
    }

    fn told_mut(&mut self) -> &mut Told {
        match self {
            Error::Usage(told) | Error::Data(told) | Error::Budget(told) | Error::System(told) => told,
        }
    }

    /// What a program that ends with it tells its caller.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Data(_) => 3,
            Error::Budget(_) => 4,
            Error::System(_) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told().message)
    }
}

impl std::error::Error for Error {}
