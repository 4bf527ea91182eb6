use qudo_core::driver::{Audit, DriverError, KeyRow, StrayCursor, Strays, Traces};
use qudo_hooks::JobId;

use crate::driver::DieselDriver;
use crate::engine::Engine;
use crate::statements::{audit, mend};

impl<E: Engine> Audit for DieselDriver<E> {
    fn traces(&self, after: JobId, limit: u32) -> Result<Vec<Traces>, DriverError> {
        self.engine.read(|conn| audit::traces::<E>(conn, after.as_uuid(), limit))
    }

    fn strays(&self, after: Option<&StrayCursor>, limit: u32) -> Result<Strays, DriverError> {
        self.engine.read(|conn| audit::strays::<E>(conn, after, limit))
    }

    fn keys(&self, after: Option<(&str, &str)>, limit: u32) -> Result<Vec<KeyRow>, DriverError> {
        self.engine.read(|conn| audit::keys::<E>(conn, after, limit))
    }

    fn trace(&self, ids: &[JobId]) -> Result<Vec<Traces>, DriverError> {
        self.engine.read(|conn| audit::trace::<E>(conn, ids))
    }

    fn mend(&self, id: JobId) -> Result<bool, DriverError> {
        self.write_transaction(|conn| mend::mend::<E>(conn, id))
    }
}
