use uuid::Uuid;

use super::{Control, Deadline, DriverError, ErrorKind, Order, Remark};

/// A schema compared with what this driver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaState {
    /// Every migration is applied.
    Current,
    /// Every migration is applied, and these that this driver does not know, which say that its programs may go on working.
    Newer(Vec<String>),
    /// These migrations are not applied yet; all of them when the schema is missing.
    Behind(Vec<String>),
    /// The database has migrations that this driver does not know and whose tables it must not work on: it is newer.
    Ahead(Vec<String>),
}

/// The tables, the database itself, and what operators order.
///
/// # Errors
///
/// When the database does not answer or refuses.
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Admin {
    /// Compares the schema with the migrations that the driver carries. Reads only.
    fn schema(&self) -> Result<SchemaState, DriverError>;

    /// Applies the missing migrations; returns their names. Concurrent migrators wait for each other. Without `force` it
    /// refuses while worker processes live whose programs must not work on the new tables.
    ///
    /// # Errors
    ///
    /// When the database does not answer, is newer, such workers live, or a migration fails.
    fn migrate(&self, force: bool) -> Result<Vec<String>, DriverError>;

    /// The migrations that are missing, with their names and their statements, to be read by people: that they are applied is recorded by
    /// [`migrate`](Self::migrate) only. Reads only. A driver without statements says only the names.
    ///
    /// # Errors
    ///
    /// When the database does not answer, or is newer.
    fn missing_migrations(&self) -> Result<Vec<(String, String)>, DriverError> {
        match self.schema()? {
            SchemaState::Behind(names) => {
                Ok(names.into_iter().map(|name| (name, String::new())).collect())
            }
            SchemaState::Ahead(unknown) => {
                let unknown = unknown.join(", ");
                Err(DriverError::new(
                    ErrorKind::Schema,
                    format!("the schema is newer (unknown: {unknown})"),
                ))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Looks at what an operator should know: whether commits are durable, whether the clocks agree, whether the tables are as they were made, which
    /// rights this account lacks. Reads only.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn checkup(&self) -> Result<Vec<Remark>, DriverError> {
        Ok(Vec::new())
    }

    /// Reverts every migration, newest first; returns their names. All jobs are lost.
    ///
    /// # Errors
    ///
    /// When the database does not answer or a migration fails.
    fn revert(&self) -> Result<Vec<String>, DriverError>;

    /// An id of the database itself, made at the first call and kept ever after.
    fn identity(&self) -> Result<Uuid, DriverError>;

    /// The orders that are stored here, with the database's identity.
    fn control(&self) -> Result<Control, DriverError>;

    /// Stores an order, or removes it; not after the deadline.
    fn set_control(&self, order: &Order, on: bool, deadline: Deadline) -> Result<(), DriverError>;
}
