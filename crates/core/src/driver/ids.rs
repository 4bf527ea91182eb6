use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::tools::random::new_id;

/// Ids that are made here, in the order of their time, and shown as the UUIDs that they are.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh one.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "a default one would not be fresh")]
            pub fn new() -> Self {
                Self(new_id())
            }

            /// One that was read from a database.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// As a UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// As it is shown; the error tells what is wrong with the text.
        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// The identity of a worker process: fresh at each start, never a host name.
    WorkerId
}

id! {
    /// The id of a row of the exception log. They sort by time.
    ExceptionId
}

id! {
    /// The id of a row of the job status. They sort by time.
    StatusId
}

id! {
    /// The id of an operation: a verb over the jobs or failures that a filter means. They sort by time.
    OperationId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_what_it_shows() {
        let id = ExceptionId::new();
        assert_eq!(id.to_string().parse::<ExceptionId>().expect("is one"), id);
        assert_eq!(format!("{id:?}"), id.to_string());
        assert!("no id".parse::<WorkerId>().is_err());
    }
}
