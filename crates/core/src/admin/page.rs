//! A list of many databases, a bounded part at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use serde::{Deserialize, Serialize};

use crate::database::everywhere::PerDatabase;
use crate::driver::{ExceptionId, JobCursor, StatusId};
use crate::tools::time::Instant;

/// How much of a list is asked for at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Paging {
    /// How many rows of each database at most. Default: 100.
    pub limit: u32,
    /// Where the last page ended, if this is not the first.
    pub after: Option<Cursor>,
    /// Whether the rows have the arguments of their jobs. Without them `arg` is empty, and large arguments need
    /// not travel. Default: yes.
    pub arguments: bool,
    /// How many rows of each database are looked at, at most, for those that the filter means. Default: 100,000.
    pub search: u32,
    /// Whether [`Page::about`] is told, which takes a count. Default: yes.
    pub estimate: bool,
    /// When a row is as old as a filter says; `None` is now.
    pub(crate) now: Option<DateTime<Utc>>,
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            limit: 100,
            after: None,
            arguments: true,
            search: 100_000,
            estimate: true,
            now: None,
        }
    }
}

impl Paging {
    /// At most this number of rows of each database; at least one.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit: limit.max(1), ..self }
    }

    /// Does not count how many rows a list has whose search was not ended.
    #[must_use]
    pub fn without_estimate(self) -> Self {
        Self { estimate: false, ..self }
    }

    /// What follows a page.
    #[must_use]
    pub fn after(self, cursor: Cursor) -> Self {
        Self { after: Some(cursor), ..self }
    }

    /// Leaves the arguments where they are.
    #[must_use]
    pub fn without_arguments(self) -> Self {
        Self { arguments: false, ..self }
    }

    /// Looks at so many rows of each database at most.
    #[must_use]
    pub fn search(self, rows: u32) -> Self {
        Self { search: rows, ..self }
    }
}

/// Rows of one database that a filter means.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Page<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// How many rows were looked at for them.
    pub searched: u64,
    /// About how many rows the list has, told where the search ended before the list did: the page is then not
    /// all that there is, even if it has no row.
    pub about: Option<u64>,
    /// How many rows were passed over because they hang on an argument that cannot be read: it is encrypted, or of a codec
    /// that this manager does not have.
    pub unreadable: u64,
    /// Whether there may be more behind it.
    pub more: bool,
}

impl<R> Page<R> {
    pub(crate) fn empty() -> Self {
        Self { rows: Vec::new(), searched: 0, about: None, unreadable: 0, more: false }
    }
}

impl<R> IntoIterator for Page<R> {
    type Item = R;
    type IntoIter = std::vec::IntoIter<R>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

/// What all databases answered: a page of each, or why there is none.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listing<R> {
    /// One entry for each database that the filter does not leave out.
    pub pages: Vec<PerDatabase<Page<R>>>,
    /// Where to go on, for [`Paging::after`]; `None` at the end of the list. A database that did not answer is asked
    /// again for the same page: a loop over pages should end at [`errors`](Self::errors), or it goes on as long as one is down.
    pub next: Option<Cursor>,
}

impl<R> IntoIterator for Listing<R> {
    type Item = PerDatabase<Page<R>>;
    type IntoIter = std::vec::IntoIter<PerDatabase<Page<R>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pages.into_iter()
    }
}

impl<R> Listing<R> {
    /// The rows of the databases that answered, with their databases' short names.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &R)> {
        self.pages.iter().flat_map(|on| {
            let rows = on.answer.iter().flat_map(|page| &page.rows);
            rows.map(|row| (&*on.database, row))
        })
    }

    /// Why databases did not answer.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &crate::error::Error)> {
        let error = |on: &'_ PerDatabase<Page<R>>| on.answer.is_err();
        self.pages
            .iter()
            .filter(move |on| error(on))
            .filter_map(|on| on.answer.as_ref().err().map(|error| (&*on.database, error)))
    }
}

/// Where in one database's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Position {
    /// Nothing of it was seen.
    Start,
    Job(JobCursor),
    /// Behind the job of this id, of those that the filter names.
    Id(JobId),
    Exception(ExceptionId),
    Status(StatusId),
}

/// Where a list is gone on with. It has a text form, for commands and pages: read it back with `parse`.
///
/// A list is not a snapshot: a job that moves on while pages are read may be in two of them, or in none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor {
    /// Databases that are not at their end.
    of: BTreeMap<String, Position>,
}

impl Cursor {
    pub(crate) fn new(of: BTreeMap<String, Position>) -> Option<Self> {
        (!of.is_empty()).then_some(Self { of })
    }

    /// The same without a database, which is not asked any more; `None` if none is left.
    pub fn without(mut self, database: &str) -> Option<Self> {
        self.of.remove(database);
        Self::new(self.of)
    }

    pub(crate) fn of(&self, database: &str) -> Option<&Position> {
        self.of.get(database)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of names, numbers and ids a JSON text can always be made.
        f.write_str(&serde_json::to_string(&self.of).unwrap_or_default())
    }
}

/// A text that is no cursor.
#[derive(Debug, thiserror::Error)]
#[error("this is not the cursor of a list, as a list prints it behind a page")]
pub struct CursorError(#[source] serde_json::Error);

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        serde_json::from_str(text).map_err(CursorError)
    }
}

/// How many rows are read at once with their arguments: few at first, since arguments may be large.
pub(crate) struct Pieces(usize);

impl Pieces {
    const MOST: usize = 200;

    /// The arguments of a piece have about so many bytes.
    const BYTES: usize = 16 * 1024 * 1024;

    pub(crate) fn new() -> Self {
        Self(Self::MOST / 8)
    }

    pub(crate) fn size(&self) -> usize {
        self.0
    }

    /// After a piece of so many rows that had so many bytes.
    pub(crate) fn note(&mut self, rows: usize, bytes: usize) {
        if rows == 0 {
            return;
        }
        let fits = (rows * Self::BYTES).checked_div(bytes).unwrap_or(Self::MOST);
        self.0 = fits.clamp(1, (self.0 * 2).min(Self::MOST));
    }
}

/// How long a search may take and how many rows it may look at.
pub(crate) struct Budget {
    rows: u64,
    until: Option<Instant>,
}

impl Budget {
    pub(crate) fn new(rows: u32, time: Duration) -> Self {
        Self { rows: rows.max(1).into(), until: Instant::now().checked_add(time) }
    }

    /// Not before the first row: each page comes a step further.
    pub(crate) fn is_spent(&self, searched: u64) -> bool {
        searched > 0
            && (searched >= self.rows || self.until.is_some_and(|until| Instant::now() > until))
    }

    /// How many rows to read next: few at first, for lists whose first rows are meant.
    pub(crate) fn next(&self, searched: u64, limit: u32) -> u32 {
        let chunk = searched.saturating_mul(2).max(limit.max(50).into()).min(4_000);
        u32::try_from(chunk.min(self.rows.saturating_sub(searched)).max(1)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text() {
        let job = JobCursor::Ready("gl \"x\"".to_owned(), -3, JobId::new());
        let of = [
            ("one".to_owned(), Position::Job(job)),
            ("two".to_owned(), Position::Start),
            ("three".to_owned(), Position::Exception(ExceptionId::new())),
        ];
        let cursor = Cursor::new(of.into_iter().collect()).expect("is not at its end");
        assert_eq!(cursor.to_string().parse::<Cursor>().expect("is one"), cursor);
        let error = "page 2".parse::<Cursor>().expect_err("is none");
        assert!(error.to_string().contains("not the cursor of a list"));
        assert!(Cursor::new(BTreeMap::new()).is_none());
    }

    #[test]
    fn a_search_reads_more_and_more_at_once_and_never_too_much() {
        let budget = Budget::new(10_000, Duration::from_secs(3_600));
        let (mut searched, mut reads) = (0, Vec::new());
        while !budget.is_spent(searched) {
            let next = budget.next(searched, 10);
            reads.push(next);
            searched += u64::from(next);
        }
        assert_eq!((reads.iter().sum::<u32>(), reads[0]), (10_000, 50));
        assert!(reads.len() < 12 && reads.iter().all(|read| *read <= 4_000));
        assert!(Budget::new(10, Duration::ZERO).is_spent(1));
        assert!(!Budget::new(0, Duration::ZERO).is_spent(0), "one piece is always read");
    }

    #[test]
    fn pieces_grow_with_small_arguments_and_shrink_with_large_ones() {
        let mut pieces = Pieces::new();
        assert_eq!(pieces.size(), 25);
        for size in [50, 100, 200, 200] {
            pieces.note(pieces.size(), 1_000);
            assert_eq!(pieces.size(), size);
        }
        pieces.note(200, 200 * 8 * 1024 * 1024);
        assert_eq!(pieces.size(), 2);
        pieces.note(2, 2 * 64 * 1024 * 1024);
        assert_eq!(pieces.size(), 1);
        pieces.note(0, 0);
        assert_eq!(pieces.size(), 1, "nothing was seen");
        pieces.note(1, 0);
        assert_eq!(pieces.size(), 2);
    }
}
