use std::collections::BTreeSet;
use std::ops::Bound;

use qudo_hooks::JobId;

use super::MemoryDriver;
use super::store::Store;
use crate::driver::{Audit, DriverError, Due, KeyRow, Leg, Place, StrayCursor, Strays, Traces};

impl Audit for MemoryDriver {
    fn traces(&self, after: JobId, limit: u32) -> Result<Vec<Traces>, DriverError> {
        Ok(self.with(|store| {
            let later = store.jobs.range((Bound::Excluded(after), Bound::Unbounded));
            let ids: Vec<_> = later.take(limit as usize).map(|(id, _)| *id).collect();
            ids.into_iter().map(|id| store.trace(id)).collect()
        }))
    }

    fn strays(&self, _: Option<&StrayCursor>, _: u32) -> Result<Strays, DriverError> {
        Ok(self.with(|store| {
            let ready = store.ready.keys().map(|(_, _, id)| *id);
            let scheduled = store.scheduled.keys().map(|(_, id)| *id);
            let legs = [Leg::Leaving, Leg::Arriving];
            let moving =
                store.moving.keys().filter(|(_, leg)| legs.contains(leg)).map(|(id, _)| *id);
            let keys = store.unique.values().copied();
            let all: BTreeSet<_> = ready
                .chain(scheduled)
                .chain(store.leases.keys().copied())
                .chain(moving)
                .chain(keys)
                .collect();
            let ids = all.into_iter().filter(|id| !store.jobs.contains_key(id)).collect();
            Strays { ids, next: None }
        }))
    }

    fn keys(&self, after: Option<(&str, &str)>, limit: u32) -> Result<Vec<KeyRow>, DriverError> {
        Ok(self.with(|store| {
            let row = |((ability, key), id): (&(String, String), &JobId)| KeyRow {
                ability: ability.clone(),
                uniqkey: key.clone(),
                id: *id,
            };
            let mut rows: Vec<_> = store.unique.iter().map(row).collect();
            rows.sort();
            let later =
                |row: &KeyRow| after.is_none_or(|after| (&*row.ability, &*row.uniqkey) > after);
            rows.retain(later);
            rows.truncate(limit as usize);
            rows
        }))
    }

    fn trace(&self, ids: &[JobId]) -> Result<Vec<Traces>, DriverError> {
        Ok(self.with(|store| ids.iter().map(|id| store.trace(*id)).collect()))
    }

    fn mend(&self, id: JobId) -> Result<bool, DriverError> {
        Ok(self.with(|store| {
            let traces = store.trace(id);
            if traces.facts.is_none() || !traces.places.is_empty() {
                return false;
            }
            store.place(id, Due::Now, super::store::Stand::default());
            true
        }))
    }
}

impl Store {
    fn trace(&self, id: JobId) -> Traces {
        let mut places = Vec::new();
        let lease = self.leases.get(&id);
        places.extend(lease.map(|_| Place::Leased));
        for (leg, place) in [(Leg::Leaving, Place::Leaving), (Leg::Arriving, Place::Arriving)] {
            places.extend(self.moving.contains_key(&(id, leg)).then_some(place));
        }
        let ready = self.ready.keys().any(|(_, _, other)| *other == id);
        places.extend(ready.then_some(Place::Ready));
        let scheduled = self.scheduled.keys().any(|(_, other)| *other == id);
        places.extend(scheduled.then_some(Place::Scheduled));
        let record = self.jobs.get(&id).map(|facts| &facts.record);
        let facts =
            record.map(|record| (record.facts.ability.to_string(), record.facts.uniqkey.clone()));
        let own = facts.clone().and_then(|(ability, key)| Some((ability, key?)));
        let keys = self.unique.iter().filter(|(_, holder)| **holder == id);
        Traces {
            facts,
            places,
            misfiled: false,
            ownerless: lease.is_some_and(|lease| !self.workers.contains_key(&lease.worker)),
            keys: keys.map(|(key, _)| key.clone()).collect(),
            holder: own.and_then(|key| self.unique.get(&key).copied()),
            ..Traces::none(id)
        }
    }
}
