//! Rows of the exception log and of the job status that a filter means, page by page, newest first.

use qudo_hooks::{CodecSet, JobId};

use super::page::{Budget, Page, Paging, Pieces, Position};
use super::row::{Asks, Lens};
use crate::driver::{
    Driver, DriverError, Exception, ExceptionId, ExceptionScan, Past, StatusId, StatusRow,
    StatusScan,
};
use crate::filter::{Field, Filter};

/// Rows of one job are read in pieces of so many.
const OF_ONE: u32 = 200;

/// The count that is told where a search was not ended goes up to this.
const ABOUT: u64 = 5_000_000;

/// Rows of one kind are read by their id, newest first, or those of one job.
trait Rows {
    type Row;
    type Id: Copy + Ord;
    const OF: Past;

    fn id(row: &Self::Row) -> Self::Id;
    fn position(id: Self::Id) -> Position;
    fn at(position: &Position) -> Option<Self::Id>;
    /// The rows and jobs of which only some can be meant, where the filter says so by id.
    fn ranges(&self) -> Option<Vec<Range<Self::Id>>>;
    fn read(
        &self,
        range: Range<Self::Id>,
        before: Option<Self::Id>,
        limit: u32,
    ) -> Result<Vec<Self::Row>, DriverError>;
    /// As [`Filter::holds`].
    fn is_meant(&self, row: &Self::Row) -> Option<bool>;
    fn strip(&self, row: Self::Row) -> Self::Row;
    /// How many bytes its argument has; `None` where arguments are not read.
    fn bytes(&self, row: &Self::Row) -> Option<usize>;
}

#[derive(Clone, Copy)]
pub(super) enum Range<I> {
    All,
    Job(JobId),
    Row(I),
}

/// A page, and its last row if there is more behind it.
type Found<R> = Result<(Page<<R as Rows>::Row>, Option<<R as Rows>::Id>), DriverError>;

/// What is searched, and how far.
pub(super) struct Extent<'e> {
    pub(super) paging: &'e Paging,
    pub(super) budget: &'e Budget,
    pub(super) from: Option<&'e Position>,
}

impl Extent<'_> {
    fn limit(&self) -> usize {
        self.paging.limit.max(1) as usize
    }
}

/// Reads piece after piece until enough rows are found, or too many were read.
fn search<R: Rows>(
    rows: &R,
    driver: &dyn Driver,
    extent: &Extent<'_>,
) -> Result<(Page<R::Row>, Option<Position>), DriverError> {
    let before = extent.from.and_then(R::at);
    let (mut page, next) = match rows.ranges() {
        Some(ranges) => of_ranges(rows, &ranges, extent, before)?,
        None => of_all(rows, extent, before)?,
    };
    page.more = next.is_some();
    if page.more && extent.paging.estimate && page.rows.len() < extent.limit() {
        // What was found is told also if the count is not.
        page.about = driver.count_past(R::OF, ABOUT).ok().map(|about| about.count);
    }
    Ok((page, next.map(R::position)))
}

fn of_all<R: Rows>(rows: &R, extent: &Extent<'_>, mut before: Option<R::Id>) -> Found<R> {
    let Extent { paging, budget, .. } = extent;
    let (mut page, mut pieces, mut with_arguments) = (Page::empty(), Pieces::new(), true);
    loop {
        if budget.is_spent(page.searched) {
            return Ok((page, before));
        }
        let mut limit = budget.next(page.searched, paging.limit);
        if with_arguments {
            limit = limit.min(pieces.size() as u32);
        }
        let read = rows.read(Range::All, before, limit)?;
        let ends = read.len() < limit as usize;
        let bytes: Option<usize> = read.iter().map(|row| rows.bytes(row)).sum();
        with_arguments = bytes.is_some();
        pieces.note(read.len(), bytes.unwrap_or_default());
        for row in read {
            if page.rows.len() >= extent.limit() {
                return Ok((page, before));
            }
            before = Some(R::id(&row));
            take(rows, row, &mut page);
        }
        if ends {
            return Ok((page, None));
        }
    }
}

/// Of each job or row as many as a page has, the newest, put in order.
fn of_ranges<R: Rows>(
    rows: &R,
    ranges: &[Range<R::Id>],
    extent: &Extent<'_>,
    from: Option<R::Id>,
) -> Found<R> {
    let (mut page, limit) = (Page::empty(), extent.limit());
    // Down to there every range was read.
    let mut reached: Option<R::Id> = None;
    for range in ranges {
        let (mut before, found) = (from, page.rows.len());
        loop {
            let read = rows.read(*range, before, OF_ONE)?;
            let ends = read.len() < OF_ONE as usize;
            before = read.last().map(R::id).or(before);
            for row in read {
                take(rows, row, &mut page);
            }
            if ends {
                break;
            }
            if page.rows.len() - found > limit || extent.budget.is_spent(page.searched) {
                reached = reached.max(before);
                break;
            }
        }
    }
    page.rows.sort_by_key(|row| std::cmp::Reverse(R::id(row)));
    // What lies behind may belong between rows that were not read.
    page.rows.retain(|row| reached.is_none_or(|reached| R::id(row) >= reached));
    let is_cut = page.rows.len() > limit;
    page.rows.truncate(limit);
    let last = page.rows.last().map(R::id);
    Ok((page, if is_cut { last } else { reached }))
}

fn take<R: Rows>(rows: &R, row: R::Row, page: &mut Page<R::Row>) {
    page.searched += 1;
    match rows.is_meant(&row) {
        Some(true) => page.rows.push(rows.strip(row)),
        Some(false) => {}
        None => page.unreadable += 1,
    }
}

/// Rows of the exception log.
pub(super) fn exceptions(
    driver: &dyn Driver,
    database: &str,
    codecs: &CodecSet,
    filter: &Filter<Exception>,
    extent: &Extent<'_>,
) -> Result<(Page<Exception>, Option<Position>), DriverError> {
    let asks = Asks::of(filter);
    let lens = Lens::new(database, codecs, &[], asks, extent.paging.now);
    let keeps = extent.paging.arguments;
    let rows = Exceptions { driver, lens, filter, args: keeps || asks.arg, keeps };
    search(&rows, driver, extent)
}

struct Exceptions<'s> {
    driver: &'s dyn Driver,
    lens: Lens<'s>,
    filter: &'s Filter<Exception>,
    args: bool,
    keeps: bool,
}

impl Rows for Exceptions<'_> {
    type Row = Exception;
    type Id = ExceptionId;
    const OF: Past = Past::Exceptions;

    fn id(row: &Exception) -> ExceptionId {
        row.id
    }

    fn position(id: ExceptionId) -> Position {
        Position::Exception(id)
    }

    fn at(position: &Position) -> Option<ExceptionId> {
        match position {
            Position::Exception(id) => Some(*id),
            _ => None,
        }
    }

    fn ranges(&self) -> Option<Vec<Range<ExceptionId>>> {
        if let Some(ids) = self.filter.only_ids(Field::Exception) {
            return Some(
                ids.into_iter().map(|id| Range::Row(ExceptionId::from_uuid(id))).collect(),
            );
        }
        self.filter.only_ids(Field::Id).map(of_jobs)
    }

    fn read(
        &self,
        range: Range<ExceptionId>,
        before: Option<ExceptionId>,
        limit: u32,
    ) -> Result<Vec<Exception>, DriverError> {
        let all = ExceptionScan { before, arguments: self.args, ..ExceptionScan::all(limit) };
        self.driver.scan_exceptions(&of_range(self.filter, range, all))
    }

    fn is_meant(&self, row: &Exception) -> Option<bool> {
        self.lens.exception(self.filter, row)
    }

    fn bytes(&self, row: &Exception) -> Option<usize> {
        self.args.then(|| row.facts.size())
    }

    fn strip(&self, mut row: Exception) -> Exception {
        if !self.keeps {
            row.facts.arg = Vec::new();
        }
        row
    }
}

/// The rows and jobs of which only some can be meant, where the filter says so by id.
pub(super) fn ranges(filter: &Filter<Exception>) -> Option<Vec<Range<ExceptionId>>> {
    if let Some(ids) = filter.only_ids(Field::Exception) {
        return Some(ids.into_iter().map(|id| Range::Row(ExceptionId::from_uuid(id))).collect());
    }
    filter.only_ids(Field::Id).map(of_jobs)
}

/// What is read of a range, without what can be told from an index not to be meant.
pub(super) fn of_range(
    filter: &Filter<Exception>,
    range: Range<ExceptionId>,
    scan: ExceptionScan,
) -> ExceptionScan {
    let discarded_only = filter.only_yes_or_no(Field::Discarded) == Some(true);
    let scan = ExceptionScan { discarded_only, ..scan };
    match range {
        Range::All => scan,
        Range::Job(job) => ExceptionScan { job: Some(job), ..scan },
        Range::Row(id) => ExceptionScan { id: Some(id), ..scan },
    }
}

/// Rows of the job status.
pub(super) fn status(
    driver: &dyn Driver,
    database: &str,
    codecs: &CodecSet,
    filter: &Filter<StatusRow>,
    extent: &Extent<'_>,
) -> Result<(Page<StatusRow>, Option<Position>), DriverError> {
    let lens = Lens::new(database, codecs, &[], Asks::of(filter), extent.paging.now);
    search(&Statuses { driver, lens, filter }, driver, extent)
}

struct Statuses<'s> {
    driver: &'s dyn Driver,
    lens: Lens<'s>,
    filter: &'s Filter<StatusRow>,
}

impl Rows for Statuses<'_> {
    type Row = StatusRow;
    type Id = StatusId;
    const OF: Past = Past::Status;

    fn id(row: &StatusRow) -> StatusId {
        row.id
    }

    fn position(id: StatusId) -> Position {
        Position::Status(id)
    }

    fn at(position: &Position) -> Option<StatusId> {
        match position {
            Position::Status(id) => Some(*id),
            _ => None,
        }
    }

    fn ranges(&self) -> Option<Vec<Range<StatusId>>> {
        self.filter.only_ids(Field::Id).map(of_jobs)
    }

    fn read(
        &self,
        range: Range<StatusId>,
        before: Option<StatusId>,
        limit: u32,
    ) -> Result<Vec<StatusRow>, DriverError> {
        let job = match range {
            Range::Job(job) => Some(job),
            Range::All | Range::Row(_) => None,
        };
        self.driver.scan_status(&StatusScan { job, before, limit })
    }

    fn is_meant(&self, row: &StatusRow) -> Option<bool> {
        self.lens.status(self.filter, row)
    }

    fn bytes(&self, _: &StatusRow) -> Option<usize> {
        None
    }

    fn strip(&self, row: StatusRow) -> StatusRow {
        row
    }
}

fn of_jobs<I>(ids: Vec<uuid::Uuid>) -> Vec<Range<I>> {
    ids.into_iter().map(|id| Range::Job(JobId::from_uuid(id))).collect()
}
