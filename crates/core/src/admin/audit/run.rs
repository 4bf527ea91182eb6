//! The audit over all databases of a manager.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;
use uuid::Uuid;

use super::judge::{flaws, is_on_its_way};
use super::merge::{Pages, shared};
use super::{AuditOptions, AuditReport, Finding, Flaw};
use crate::database::Database;
use crate::database::set::Databases;
use crate::driver::{Driver, DriverError, ErrorKind, KeyRow, Traces};
use crate::error::Error;
use crate::tools::threads::sleep;

/// Rows of one look.
const PAGE: u32 = 2_000;

/// Ids of one second look, which may read whole tables.
const SUSPECTS: usize = 200;

/// After more than 10,000 suspects of a database the look at it ends, which the report then tells.
const MAX_SUSPECTS: usize = 10_000;

/// What was on its way at the first look has arrived by the second.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Looks at every live job of every database.
pub(crate) fn run(databases: &Databases, options: AuditOptions) -> AuditReport {
    let mut run = Run::new(databases, options);
    let suspects: Vec<_> = (0..run.databases.len()).map(|at| run.look_within(at)).collect();
    run.look_between();
    run.confirm(suspects);
    run.report
}

struct Run {
    databases: Vec<Arc<Database>>,
    options: AuditOptions,
    report: AuditReport,
    /// What the databases say of themselves: under a second name all jobs would be there twice.
    identities: Vec<(String, Uuid)>,
    /// Which databases cannot be looked at.
    failed: BTreeSet<usize>,
    /// Ids that two databases hold, and keys.
    twice: Vec<(JobId, Vec<usize>)>,
    keys_twice: Vec<((String, String), Vec<usize>)>,
}

impl Run {
    fn new(databases: &Databases, options: AuditOptions) -> Self {
        let report = AuditReport { jobs: 0, findings: Vec::new(), failures: Vec::new() };
        Self {
            databases: databases.everywhere(),
            options,
            report,
            identities: Vec::new(),
            failed: BTreeSet::new(),
            twice: Vec::new(),
            keys_twice: Vec::new(),
        }
    }

    fn ask<T: Send + 'static>(
        &mut self,
        at: usize,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Option<T> {
        if self.failed.contains(&at) {
            return None;
        }
        match self.databases[at].call("audit", ask) {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.fail(at, error);
                None
            }
        }
    }

    fn fail(&mut self, at: usize, error: Error) {
        if self.failed.insert(at) {
            self.report.failures.push((self.databases[at].name.to_string(), error));
        }
    }

    /// The ids of a database that do not look sound at the first look.
    fn look_within(&mut self, at: usize) -> BTreeSet<JobId> {
        let mut suspects = BTreeSet::new();
        let identity = self.ask(at, |driver| match driver.control()?.identity {
            Some(identity) => Ok(Some(identity)),
            // Nobody has worked it yet. One that takes no writes stays without.
            None => Ok(driver.identity().ok()),
        });
        if let Some(identity) = identity.flatten() {
            let known = self.identities.iter().find(|(_, other)| *other == identity);
            if let Some((name, _)) = known {
                let same = Error::SameDatabase {
                    first: name.clone(),
                    second: self.databases[at].name.to_string(),
                    reason: format!("both have the identity {identity}"),
                };
                self.fail(at, same);
                return suspects;
            }
            self.identities.push((self.databases[at].name.to_string(), identity));
        }
        let mut after = JobId::from_uuid(Uuid::nil());
        while let Some(page) = self.ask(at, move |driver| driver.traces(after, PAGE)) {
            let Some(last) = page.last() else { break };
            let is_last = page.len() < PAGE as usize;
            self.report.jobs += page.len() as u64;
            let mut before = after;
            after = last.id;
            for traces in &page {
                // An id twice: in two rows of one table.
                if !flaws(traces).is_empty() || traces.id == before {
                    suspects.insert(traces.id);
                }
                before = traces.id;
            }
            if is_last || suspects.len() > MAX_SUSPECTS {
                break;
            }
        }
        let mut cursor = None;
        while let Some(found) = self.ask(at, move |driver| driver.strays(cursor.as_ref(), PAGE)) {
            suspects.extend(found.ids);
            cursor = found.next;
            if cursor.is_none() || suspects.len() > MAX_SUSPECTS {
                break;
            }
        }
        suspects
    }

    /// Ids and keys that live in two databases at the first look.
    fn look_between(&mut self) {
        let all: Vec<usize> =
            (0..self.databases.len()).filter(|at| !self.failed.contains(at)).collect();
        if all.len() < 2 {
            return;
        }
        let mut errors = Vec::new();
        let ids = all.iter().map(|at| {
            let database = Arc::clone(&self.databases[*at]);
            Pages::new(move |after: Option<&JobId>| {
                let after = after.copied().unwrap_or(JobId::from_uuid(Uuid::nil()));
                let page = database.call("audit", move |driver| driver.traces(after, PAGE))?;
                Ok::<_, Error>(page.into_iter().map(|traces| traces.id).collect())
            })
        });
        let (twice, keys_twice) = (&mut self.twice, &mut self.keys_twice);
        let places = |places: Vec<usize>| places.into_iter().map(|place| all[place]).collect();
        shared(
            ids.collect(),
            |id, at| {
                if twice.len() <= MAX_SUSPECTS {
                    twice.push((id, places(at)));
                }
            },
            |at, error| errors.push((all[at], error)),
        );
        if !self.options.keys_may_double {
            let keys = all.iter().map(|at| {
                let database = Arc::clone(&self.databases[*at]);
                Pages::new(move |after: Option<&(String, String)>| {
                    let after = after.cloned();
                    let page = database.call("audit", move |driver| {
                        let after = after.as_ref().map(|(ability, key)| (&**ability, &**key));
                        driver.keys(after, PAGE)
                    })?;
                    let key = |row: KeyRow| (row.ability, row.uniqkey);
                    Ok::<_, Error>(page.into_iter().map(key).collect())
                })
            });
            shared(
                keys.collect(),
                |key, at| {
                    if keys_twice.len() <= MAX_SUSPECTS {
                        keys_twice.push((key, places(at)));
                    }
                },
                |at, error| errors.push((all[at], error)),
            );
        }
        for (at, error) in errors {
            self.fail(at, error);
        }
    }

    /// Looks a second time at what was suspect.
    fn confirm(&mut self, suspects: Vec<BTreeSet<JobId>>) {
        let twice = std::mem::take(&mut self.twice);
        let keys_twice = std::mem::take(&mut self.keys_twice);
        if suspects.iter().all(BTreeSet::is_empty) && twice.is_empty() && keys_twice.is_empty() {
            return;
        }
        sleep(BETWEEN_LOOKS);
        for (at, ids) in suspects.into_iter().enumerate() {
            if ids.len() > MAX_SUSPECTS {
                self.fail_at_last(at);
            }
            let ids: Vec<_> = ids.into_iter().take(MAX_SUSPECTS).collect();
            for some in ids.chunks(SUSPECTS) {
                for traces in self.trace(at, some).into_values() {
                    for flaw in flaws(&traces) {
                        self.found(&[at], traces.id, flaw);
                    }
                }
            }
        }
        for (many, places) in [
            (twice.len() > MAX_SUSPECTS, twice.first().map(|(_, places)| places[0])),
            (keys_twice.len() > MAX_SUSPECTS, keys_twice.first().map(|(_, places)| places[0])),
        ] {
            if let Some(at) = places.filter(|_| many) {
                self.fail_at_last(at);
            }
        }
        let mut pairs: BTreeMap<(usize, usize), Vec<JobId>> = BTreeMap::new();
        for (id, places) in twice.into_iter().take(MAX_SUSPECTS) {
            for (nth, &one) in places.iter().enumerate() {
                for &other in &places[nth + 1..] {
                    pairs.entry((one, other)).or_default().push(id);
                }
            }
        }
        for ((one, other), ids) in pairs {
            for some in ids.chunks(SUSPECTS) {
                self.confirm_twice(some, one, other);
            }
        }
        for (key, places) in keys_twice.into_iter().take(MAX_SUSPECTS) {
            self.confirm_key(&key, &places);
        }
    }

    fn trace(&mut self, at: usize, ids: &[JobId]) -> BTreeMap<JobId, Traces> {
        let ids = ids.to_vec();
        let found = self.ask(at, move |driver| driver.trace(&ids)).unwrap_or_default();
        found.into_iter().map(|traces| (traces.id, traces)).collect()
    }

    /// A job may be on its way while we look at one database after the other: so the first is looked
    /// at again after the second, and must not have changed.
    fn confirm_twice(&mut self, ids: &[JobId], one: usize, other: usize) {
        let [mut before, mut there, mut after] = [one, other, one].map(|at| self.trace(at, ids));
        for id in ids {
            let looks = [&mut before, &mut there, &mut after].map(|look| look.remove(id));
            let [Some(before), Some(there), Some(after)] = looks else { continue };
            let both = before == after && before.is_live() && there.is_live();
            if both && !is_on_its_way(&before, &there) {
                self.found(&[one, other], *id, Flaw::TwoDatabases);
            }
        }
    }

    fn confirm_key(&mut self, key: &(String, String), places: &[usize]) {
        let mut holders = Vec::new();
        for &at in places {
            let (ability, uniqkey) = key.clone();
            let holder = self.ask(at, move |driver| driver.holder(&ability, &uniqkey)).flatten();
            holders.extend(holder.map(|id| (at, id)));
        }
        // A job that moves holds its key in both for a while.
        holders.dedup_by_key(|(_, id)| *id);
        if let [(one, id), (other, _), ..] = holders[..] {
            let (ability, uniqkey) = key.clone();
            self.found(&[one, other], id, Flaw::KeyInTwoDatabases { ability, uniqkey });
        }
    }

    fn found(&mut self, at: &[usize], job: JobId, flaw: Flaw) {
        let names = at.iter().map(|at| self.databases[*at].name.to_string()).collect();
        let repaired = match *at {
            [at] if self.options.repair => self.mend(at, job, &flaw),
            _ => false,
        };
        self.report.findings.push(Finding { databases: names, job, flaw, repaired });
    }

    /// Whether the flaw is gone.
    fn mend(&mut self, at: usize, job: JobId, flaw: &Flaw) -> bool {
        match self.databases[at].call("audit", move |driver| driver.mend(job)) {
            Ok(_) => {}
            // Somebody has it in hand at this moment, as far as the server lets us see.
            Err(Error::Database { source, .. }) if source.kind() == ErrorKind::Contention => {
                log::warn!("database {:?}: job {job}: {source}", &*self.databases[at].name);
                return false;
            }
            Err(error) => {
                self.fail(at, error);
                return false;
            }
        }
        let left = self.trace(at, &[job]).remove(&job);
        left.is_some_and(|traces| !flaws(&traces).contains(flaw))
    }

    /// Tells that not all was looked at, without giving the database up.
    fn fail_at_last(&mut self, at: usize) {
        let name = self.databases[at].name.to_string();
        let message = format!(
            "more than {MAX_SUSPECTS} jobs or keys looked wrong at the first look, or were on their way; \
             the look ended there, so not all was seen"
        );
        let error = DriverError::new(ErrorKind::Other, message);
        self.report.failures.push((name.clone(), Error::database(&name, "audit", error)));
    }
}
