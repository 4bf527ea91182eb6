use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressStyle};
use qudo::admin::{Counts, Slice};

/// Tells on a terminal how far an operation has come; in a pipe nothing.
pub(super) struct Bar {
    bar: ProgressBar,
    /// Of each database.
    counts: BTreeMap<String, Counts>,
}

impl Bar {
    pub(super) fn new() -> Self {
        // It shows itself on a terminal only, and there on the standard error.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        Self { bar, counts: BTreeMap::new() }
    }

    pub(super) fn note(&mut self, slice: &Slice) {
        self.counts.insert(slice.database.clone(), slice.counts);
        let mut all = Counts::default();
        for counts in self.counts.values() {
            all += *counts;
        }
        let left = if all.conflicts + all.gone > 0 {
            format!(", {} in conflict, {} gone", all.conflicts, all.gone)
        } else {
            String::new()
        };
        self.bar.set_message(format!("{} done{left}", all.done));
        self.bar.tick();
    }

    /// Prints something else meanwhile.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        self.bar.suspend(say);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
