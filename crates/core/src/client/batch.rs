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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{SOON, databases, record};
    use crate::new_job::UniqPolicy;

    fn grouped(jobs: Vec<NewJob>) -> Vec<(Vec<String>, Vec<usize>)> {
        let set = databases(&["one", "two", "three"]);
        let mut batch = Batch::new(jobs.len());
        for (place, job) in jobs.into_iter().enumerate() {
            let way = batch.way(&set, &job, Instant::now() + SOON).expect("there is a way");
            batch.add(way, place, record());
        }
        let names = |route: &Route| {
            route.candidates.iter().map(|one| one.name.to_string()).collect::<Vec<_>>()
        };
        let groups = batch.into_groups().into_iter();
        let groups = groups.map(|group| {
            assert_eq!(group.records.len(), group.places.len());
            (names(&group.route), group.places)
        });
        groups.collect()
    }

    fn job() -> NewJob {
        NewJob::named("mail", 1.into())
    }

    #[test]
    fn jobs_that_may_go_anywhere_travel_together() {
        let groups = grouped((0..5).map(|_| job()).collect());
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].0.len(), &groups[0].1), (3, &vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn jobs_for_one_database_travel_together_in_the_order_of_the_first() {
        let groups = grouped(vec![
            job().database("two"),
            job(),
            job().database("one"),
            job().database("two"),
        ]);
        let places: Vec<_> = groups.iter().map(|(_, places)| places.clone()).collect();
        assert_eq!(places, [vec![0, 3], vec![1], vec![2]]);
        assert_eq!((&*groups[0].0[0], &*groups[2].0[0]), ("two", "one"));
    }

    #[test]
    fn keys_travel_with_those_of_the_same_home_and_the_same_policy() {
        let keyed = (0..60).map(|n| job().uniqkey(n.to_string()));
        let groups = grouped(keyed.collect());
        assert_eq!(groups.len(), 3, "one for each home");
        assert!(groups.iter().all(|(names, _)| names.len() == 1));
        assert_eq!(groups.iter().map(|(_, places)| places.len()).sum::<usize>(), 60);
        let open = (0..60).map(|n| job().uniqkey(n.to_string()).uniq_policy(UniqPolicy::Available));
        let groups = grouped(open.collect());
        assert_eq!(groups.len(), 6, "one for each order of the three");
    }
}
