//! Live jobs that a filter means, page by page.

use std::collections::{HashMap, HashSet};

use qudo_hooks::{CodecSet, JobId};

use super::page::{Budget, Page, Paging, Pieces, Position};
use super::row::{Asks, Lens};
use crate::driver::{Driver, DriverError, JobCursor, JobInfo, JobScan, Place, PlacedJob};
use crate::filter::{Field, Filter, Value};

/// The narrow tables in the order of a list: what runs, what runs next, what waits.
const PLACES: [Place; 5] =
    [Place::Leased, Place::Ready, Place::Scheduled, Place::Leaving, Place::Arriving];

/// Facts are read for so many jobs at once; with their arguments, for fewer.
const FACTS: usize = 1_000;

/// A key is looked up for each of so many pairs of ability and key at most; for more, jobs are searched.
const MAX_KEYS: usize = 100;

/// What is asked of one database.
pub(super) struct Question<'q> {
    pub(super) driver: &'q dyn Driver,
    pub(super) database: &'q str,
    pub(super) codecs: &'q CodecSet,
    pub(super) filter: &'q Filter<JobInfo>,
    pub(super) paging: &'q Paging,
    pub(super) budget: Budget,
}

impl Question<'_> {
    /// The next page, and where the one behind it begins.
    pub(super) fn page(
        self,
        from: Option<&Position>,
    ) -> Result<(Page<JobInfo>, Option<Position>), DriverError> {
        let asks = Asks::of(self.filter);
        let workers = if asks.worker { self.driver.workers()? } else { Vec::new() };
        let lens = Lens::new(self.database, self.codecs, &workers, asks, self.paging.now);
        let mut search = Search {
            arguments: self.paging.arguments || asks.arg,
            of: self,
            lens,
            pieces: Pieces::new(),
            seen: HashSet::new(),
            page: Page::empty(),
        };
        if let Some(ids) = search.ids()? {
            let next = search.by_ids(ids, from)?;
            search.page.more = next.is_some();
            return Ok((search.page, next.map(Position::Id)));
        }
        let after = match from {
            Some(Position::Job(cursor)) => Some(cursor.clone()),
            _ => None,
        };
        let next = search.walk(after)?;
        let Search { mut page, of, .. } = search;
        page.more = next.is_some();
        if page.more && of.paging.estimate && page.rows.len() < of.limit() {
            // What was found is told also if the count is not.
            page.about = about(of.driver).ok();
        }
        Ok((page, next.map(Position::Job)))
    }

    fn limit(&self) -> usize {
        self.paging.limit.max(1) as usize
    }
}

/// About how many jobs live there.
fn about(driver: &dyn Driver) -> Result<u64, DriverError> {
    let depth = driver.depth(2_000_000)?;
    Ok(depth.ready.count + depth.scheduled.count + depth.running.count + depth.moving.count)
}

struct Search<'q> {
    of: Question<'q>,
    lens: Lens<'q>,
    arguments: bool,
    pieces: Pieces,
    /// A job that moved on while the page was read would be in it twice.
    seen: HashSet<JobId>,
    page: Page<JobInfo>,
}

impl Search<'_> {
    /// The jobs of which only some can be meant, where the filter says so by id or by ability and key.
    fn ids(&self) -> Result<Option<Vec<JobId>>, DriverError> {
        let filter = self.of.filter;
        if let Some(ids) = filter.only_ids(Field::Id) {
            return Ok(Some(ids.into_iter().map(JobId::from_uuid).collect()));
        }
        let (abilities, keys) = (filter.only_texts(Field::Ability), filter.only_texts(Field::Key));
        let (Some(abilities), Some(keys)) = (abilities, keys) else { return Ok(None) };
        if abilities.len() * keys.len() > MAX_KEYS {
            return Ok(None);
        }
        let mut ids = Vec::new();
        for ability in &abilities {
            for key in &keys {
                ids.extend(self.of.driver.holder(ability, key)?);
            }
        }
        Ok(Some(ids))
    }

    /// Looks up these jobs, in the order of their ids. Returns the last one that was looked at, if there are more.
    fn by_ids(
        &mut self,
        mut ids: Vec<JobId>,
        from: Option<&Position>,
    ) -> Result<Option<JobId>, DriverError> {
        ids.sort_unstable();
        ids.dedup();
        if let Some(Position::Id(after)) = from {
            ids.retain(|id| id > after);
        }
        let mut rest = &*ids;
        while !rest.is_empty() {
            let (some, later) = rest.split_at(self.step().min(rest.len()));
            rest = later;
            let mut jobs = self.facts(some)?;
            for (at, id) in some.iter().enumerate() {
                self.page.searched += 1;
                if let Some(job) = jobs.remove(id) {
                    self.take(job);
                }
                let is_last = at + 1 == some.len() && rest.is_empty();
                if !is_last && (self.is_full() || self.of.budget.is_spent(self.page.searched)) {
                    return Ok(Some(*id));
                }
            }
        }
        Ok(None)
    }

    /// For how many jobs facts are read at once.
    fn step(&self) -> usize {
        if self.arguments { self.pieces.size() } else { FACTS }
    }

    fn facts(&mut self, ids: &[JobId]) -> Result<HashMap<JobId, JobInfo>, DriverError> {
        let jobs = self.of.driver.jobs(ids, self.arguments)?;
        self.pieces.note(jobs.len(), jobs.iter().map(|job| job.facts.size()).sum());
        Ok(jobs.into_iter().map(|job| (job.id, job)).collect())
    }

    /// Whether a job is in the page; notes it if it is meant.
    fn take(&mut self, mut job: JobInfo) -> bool {
        let meant = self.lens.job(self.of.filter, &job);
        self.page.unreadable += u64::from(meant.is_none());
        let taken = meant == Some(true) && self.seen.insert(job.id);
        if taken {
            if !self.of.paging.arguments {
                job.facts.arg = Vec::new();
            }
            self.page.rows.push(job);
        }
        taken
    }

    fn is_full(&self) -> bool {
        self.page.rows.len() >= self.of.limit()
    }

    /// Goes through the narrow tables from there. Returns where it ended, unless that was the end.
    fn walk(&mut self, from: Option<JobCursor>) -> Result<Option<JobCursor>, DriverError> {
        let first = from.as_ref().map_or(0, |cursor| {
            PLACES.iter().position(|place| *place == cursor.place()).unwrap_or_default()
        });
        let mut last = from;
        for place in &PLACES[first..] {
            let after = last.take_if(|cursor| cursor.place() == *place);
            if !self.may_be_at(*place) {
                continue;
            }
            if let Some(stopped) = self.walk_place(*place, after)? {
                return Ok(Some(stopped));
            }
        }
        Ok(None)
    }

    fn may_be_at(&self, place: Place) -> bool {
        let state = match place {
            Place::Leased => "running",
            Place::Ready => "ready",
            Place::Scheduled => "scheduled",
            Place::Leaving | Place::Arriving => "moving",
        };
        let known = |field, _: &[String]| match field {
            Field::State => Value::text(state),
            Field::Db => Value::text(self.of.database),
            _ => Value::Unknown,
        };
        self.of.filter.holds(&known) != Some(false)
    }

    fn walk_place(
        &mut self,
        place: Place,
        after: Option<JobCursor>,
    ) -> Result<Option<JobCursor>, DriverError> {
        // Of ready jobs a queue is a range of the index.
        let queues = match place {
            Place::Ready => self.of.filter.only_texts(Field::Queue),
            _ => None,
        };
        let Some(mut queues) = queues else { return self.walk_range(place, None, after) };
        queues.sort_unstable();
        queues.dedup();
        let reached = match &after {
            Some(JobCursor::Ready(queue, ..)) => Some(queue.clone()),
            _ => None,
        };
        queues.retain(|queue| reached.as_ref().is_none_or(|reached| queue >= reached));
        for queue in &queues {
            let after = after.clone().filter(|_| reached.as_ref() == Some(queue));
            if let Some(stopped) = self.walk_range(place, Some(queue), after)? {
                return Ok(Some(stopped));
            }
        }
        Ok(None)
    }

    fn walk_range(
        &mut self,
        place: Place,
        queue: Option<&str>,
        mut after: Option<JobCursor>,
    ) -> Result<Option<JobCursor>, DriverError> {
        loop {
            if self.is_full() || self.of.budget.is_spent(self.page.searched) {
                // Of a table that was not begun nothing can be named but its first row.
                return Ok(Some(after.unwrap_or_else(|| begin(place, queue))));
            }
            let limit = self.of.budget.next(self.page.searched, self.of.paging.limit);
            let scan = JobScan { place, queue, after: after.as_ref(), limit };
            let rows = self.of.driver.scan_jobs(&scan)?;
            let ends = rows.len() < limit as usize;
            if let Some(stopped) = self.look_at(&rows)? {
                let at_the_end = ends && rows.last().is_some_and(|last| last.at == stopped);
                return Ok(if at_the_end {
                    self.begin_of_next(place, queue)
                } else {
                    Some(stopped)
                });
            }
            if ends {
                return Ok(None);
            }
            after = rows.last().map(|last| last.at.clone());
        }
    }

    /// Takes those of these rows that are meant. Returns the last one that was looked at, if the page is full or its time is over.
    fn look_at(&mut self, rows: &[PlacedJob]) -> Result<Option<JobCursor>, DriverError> {
        let mut rest = rows;
        while !rest.is_empty() {
            let step = self.step();
            // The next rows of which something is worth reading.
            let mut wanted = Vec::new();
            let mut looked = 0;
            let room = self.of.limit() - self.page.rows.len();
            let mut sure = 0;
            for row in rest {
                looked += 1;
                match self.lens.placed(self.of.filter, row) {
                    Some(false) => continue,
                    Some(true) => sure += 1,
                    None => {}
                }
                wanted.push(row.at.id());
                if wanted.len() >= step || sure >= room {
                    break;
                }
            }
            let (now, later) = rest.split_at(looked);
            let mut found = self.facts(&wanted)?;
            for row in now {
                self.page.searched += 1;
                let Some(job) = found.remove(&row.at.id()) else { continue };
                self.take(job);
                if self.is_full() {
                    return Ok(Some(row.at.clone()));
                }
            }
            // Arguments take long to read: what was looked at is told in time.
            if let Some(last) = now.last()
                && self.of.budget.is_spent(self.page.searched)
            {
                return Ok(Some(last.at.clone()));
            }
            rest = later;
        }
        Ok(None)
    }

    /// Where a full page goes on that ended with the last row of a range; nothing if no other range is left.
    fn begin_of_next(&self, place: Place, queue: Option<&str>) -> Option<JobCursor> {
        if let Some(queue) = queue {
            let queues = self.of.filter.only_texts(Field::Queue).unwrap_or_default();
            if let Some(next) = queues.iter().filter(|one| ***one > *queue).min() {
                return Some(begin(place, Some(next)));
            }
        }
        let at = PLACES.iter().position(|one| *one == place).unwrap_or_default();
        let next = PLACES[at + 1..].iter().find(|place| self.may_be_at(**place))?;
        Some(begin(*next, None))
    }
}

/// A row before all others of a table, or of a queue.
fn begin(place: Place, queue: Option<&str>) -> JobCursor {
    let id = JobId::from_uuid(uuid::Uuid::nil());
    match place {
        Place::Leased => JobCursor::Leased(id),
        Place::Ready => JobCursor::Ready(queue.unwrap_or_default().to_owned(), i32::MIN, id),
        Place::Scheduled => JobCursor::Scheduled(chrono::DateTime::UNIX_EPOCH, id),
        Place::Leaving => JobCursor::Leaving(String::new(), id),
        Place::Arriving => JobCursor::Arriving(String::new(), id),
    }
}
