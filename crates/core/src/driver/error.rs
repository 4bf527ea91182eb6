use std::fmt;

/// What an error of a database means to the manager; decided in one place per driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Connection lost or refused, starting up, read-only, too many connections, timed out.
    Down,
    /// A deadlock, lock wait, busy or serialization error that remained after the driver's retries.
    Contention,
    /// The schema is missing, too old or too new.
    Schema,
    /// The database account may not do this.
    Permission,
    /// Anything else: the caller's error.
    Other,
}

/// What became of the time for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lapse {
    /// There was enough.
    None,
    /// It began and was not answered.
    Hung,
    /// It never began, because too many others were under way.
    Congested,
    /// The database got to it only when it was over, and did nothing.
    Late,
}

/// An error of one database.
#[derive(Debug)]
pub struct DriverError {
    kind: ErrorKind,
    ambiguous: bool,
    lapse: Lapse,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DriverError {
    /// An error with its meaning; the message must not contain a password.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, ambiguous: false, lapse: Lapse::None, message: message.into(), source: None }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Marks that the statement may have run although its answer was lost.
    #[must_use]
    pub fn ambiguous(mut self, ambiguous: bool) -> Self {
        self.ambiguous = ambiguous;
        self
    }

    /// Marks that the database did not answer in time.
    pub(crate) fn hung(mut self, hung: bool) -> Self {
        if hung {
            self.lapse = Lapse::Hung;
        }
        self
    }

    /// The same for another of those who shared a call; the causes become part of the message.
    pub(crate) fn shared(&self) -> Self {
        let message = crate::tools::causes::with_causes(self);
        Self {
            kind: self.kind,
            ambiguous: self.ambiguous,
            lapse: self.lapse,
            message,
            source: None,
        }
    }

    /// What the error means.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the database cannot be used now; the manager goes on with the others.
    pub fn is_down(&self) -> bool {
        self.kind == ErrorKind::Down
    }

    /// Whether the statement may have run although its answer was lost.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Marks that the call never began, because too many others were under way: the database is
    /// passed over, and not taken out of use.
    #[must_use]
    pub fn congested(mut self, congested: bool) -> Self {
        if congested {
            self.lapse = Lapse::Congested;
        }
        self
    }

    /// A write that came after its deadline, so that it stored nothing.
    pub fn too_late() -> Self {
        let message =
            "the time for this was over before the database got to it, so it stored nothing";
        Self { lapse: Lapse::Late, ..Self::new(ErrorKind::Down, message) }
    }

    /// Whether the write came after its deadline.
    pub fn is_too_late(&self) -> bool {
        self.lapse == Lapse::Late
    }

    /// Whether this is a reason to take the database out of use.
    pub(crate) fn marks_down(&self) -> bool {
        self.is_down() && !matches!(self.lapse, Lapse::Congested | Lapse::Late)
    }

    /// Whether the database did not answer in time, so that its connections are of no more use.
    pub(crate) fn is_hung(&self) -> bool {
        self.lapse == Lapse::Hung
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DriverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
