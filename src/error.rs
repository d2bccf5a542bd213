//! One error type: what went wrong in a sentence, how to mend it, and the exit code it deserves.

use std::fmt;
use std::path::Path;

/// What kind of trouble it is; decides the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command or the configuration is wrong: exit code 2.
    Usage,
    /// The data handed in is wrong: exit code 3.
    Data,
    /// The privacy budget does not allow it: exit code 4.
    Budget,
    /// What was made may not leave: exit code 4.
    Refused,
    /// The person asked the run to stop (Ctrl-C): exit code 130.
    Interrupted,
    /// Everything else: exit code 1.
    Other,
}

/// An error to show to a person.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// A wrong command line or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(Kind::Usage, message)
    }

    /// A file or record that cannot be used.
    pub fn data(message: impl Into<String>) -> Self {
        Error::new(Kind::Data, message)
    }

    /// A step, run or query that the privacy budget does not allow.
    pub fn budget(message: impl Into<String>) -> Self {
        Error::new(Kind::Budget, message)
    }

    /// Something that may not be handed out.
    pub fn refused(message: impl Into<String>) -> Self {
        Error::new(Kind::Refused, message)
    }

    /// The person asked to stop; state is saved.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Error::new(Kind::Interrupted, message)
    }

    /// Anything else.
    pub fn other(message: impl Into<String>) -> Self {
        Error::new(Kind::Other, message)
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
        self.hint = Some(hint.into());
        self
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The line that says how to mend it, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The exit code of the program for this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Data => 3,
            Kind::Budget | Kind::Refused => 4,
            Kind::Interrupted => 130,
            Kind::Other => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The core's errors, as the program tells them.
impl From<dpsynth_privacy::Error> for Error {
    fn from(error: dpsynth_privacy::Error) -> Self {
        use dpsynth_privacy::Error as Core;
        let kind = match &error {
            Core::Usage(_) => Kind::Usage,
            Core::Data(_) => Kind::Data,
            Core::Budget(_) => Kind::Budget,
            Core::System(_) => Kind::Other,
        };
        let told = error.told();
        Error {
            kind,
            message: told.message.clone(),
            hint: told.hint.clone(),
        }
    }
}
