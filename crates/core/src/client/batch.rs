//! The jobs of one `enqueue_many`, by where they may go.

use std::collections::HashMap;
use std::sync::Arc;

use super::route::{Route, route};
use crate::database::set::Databases;
use crate::driver::JobRecord;
use crate::error::Error;
use crate::new_job::NewJob;
use crate::tools::time::Instant;

/// Jobs that travel together.
pub(super) struct Group {
    /// The way of the first of them, which is good for all.
    pub(super) route: Route,
    pub(super) records: Vec<JobRecord>,
    /// The place of each in the call.
    pub(super) places: Vec<usize>,
}

/// Jobs with the same candidates in the same order travel together. Those without a unique key and
/// without a database of their own may all take the way that was found for the first of them: to
/// look for each at all databases, under their locks, costs more than to encode its argument.
#[derive(Default)]
pub(super) struct Batch {
    groups: Vec<Group>,
    anywhere: Option<usize>,
    named: HashMap<String, usize>,
    /// By whether only the home will do, and the candidates in order.
    keyed: HashMap<(bool, Vec<Arc<str>>), usize>,
    /// How many jobs are expected in all: most calls have one group.
    expected: usize,
}

/// Where a job of a batch may go.
pub(super) enum Way {
    /// As an earlier one.
    Shared(usize),
    /// One of its own, as its unique key wants it.
    Own(Route),
}

impl Batch {
    pub(super) fn new(expected: usize) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Finds the way of a job whose hooks have run. Databases are asked for their orders until then.
    pub(super) fn way(
        &mut self,
        databases: &Databases,
        job: &NewJob,
        until: Instant,
    ) -> Result<Way, Error> {
        let known = match (&job.database, job.fields.uniqkey()) {
            (Some(name), _) => self.named.get(name).copied(),
            (None, None) => self.anywhere,
            (None, Some(_)) => return route(databases, job, until).map(Way::Own),
        };
        if let Some(group) = known {
            return Ok(Way::Shared(group));
        }
        let group = self.open(route(databases, job, until)?);
        match &job.database {
            Some(name) => drop(self.named.insert(name.clone(), group)),
            None => self.anywhere = Some(group),
        }
        Ok(Way::Shared(group))
    }

    pub(super) fn add(&mut self, way: Way, place: usize, record: JobRecord) {
        let group = match way {
            Way::Shared(group) => group,
            Way::Own(route) => {
                let names = route.candidates.iter().map(|one| Arc::clone(&one.name)).collect();
                let key = (route.home_only, names);
                let known = self.keyed.get(&key).copied();
                known.unwrap_or_else(|| {
                    let group = self.open(route);
                    self.keyed.insert(key, group);
                    group
                })
            }
        };
        let group = &mut self.groups[group];
        group.records.push(record);
        group.places.push(place);
    }

    fn open(&mut self, route: Route) -> usize {
        // A record is large: to move them all while the list grows costs more than to make them.
        let room = if self.groups.is_empty() { self.expected } else { 0 };
        let (records, places) = (Vec::with_capacity(room), Vec::with_capacity(room));
        self.groups.push(Group { route, records, places });
        self.groups.len() - 1
    }

    /// The groups in the order of their first jobs.
    pub(super) fn into_groups(self) -> Vec<Group> {
        self.groups
    }
}
