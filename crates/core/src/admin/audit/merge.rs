//! What several databases tell in one order, merged: which of it is in two of them.

use std::collections::VecDeque;

/// Rows of one database in the order of their keys, page by page.
pub(super) struct Pages<K, F> {
    rows: VecDeque<K>,
    last: Option<K>,
    ended: bool,
    fetch: F,
}

impl<K: Ord + Clone, E, F: FnMut(Option<&K>) -> Result<Vec<K>, E>> Pages<K, F> {
    /// `fetch` answers a page after a key, an empty one at the end.
    pub(super) fn new(fetch: F) -> Self {
        Self { rows: VecDeque::new(), last: None, ended: false, fetch }
    }

    fn peek(&mut self) -> Result<Option<&K>, E> {
        if self.rows.is_empty() && !self.ended {
            let page = (self.fetch)(self.last.as_ref())?;
            self.ended = page.is_empty();
            self.rows.extend(page);
        }
        Ok(self.rows.front())
    }

    fn pop(&mut self) {
        self.last = self.rows.pop_front().or(self.last.take());
    }
}

/// The keys that are in more than one source, with the places of these. A source that fails is left
/// out from there on; its error is told.
pub(super) fn shared<K: Ord + Clone, E, F: FnMut(Option<&K>) -> Result<Vec<K>, E>>(
    mut sources: Vec<Pages<K, F>>,
    mut found: impl FnMut(K, Vec<usize>),
    mut failed: impl FnMut(usize, E),
) {
    let mut alive: Vec<usize> = (0..sources.len()).collect();
    loop {
        let mut least: Option<(K, Vec<usize>)> = None;
        let mut lost = Vec::new();
        for &at in &alive {
            match sources[at].peek() {
                Ok(None) => {}
                Ok(Some(key)) => match &mut least {
                    Some((known, places)) if known == key => places.push(at),
                    Some((known, _)) if &*known < key => {}
                    _ => least = Some((key.clone(), vec![at])),
                },
                Err(error) => {
                    failed(at, error);
                    lost.push(at);
                }
            }
        }
        alive.retain(|at| !lost.contains(at));
        let Some((key, places)) = least else { return };
        for &at in &places {
            sources[at].pop();
        }
        if places.len() > 1 {
            found(key, places);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(sources: &[Vec<u8>], page: usize) -> Vec<(u8, Vec<usize>)> {
        let pages = |rows: Vec<u8>| {
            Pages::new(move |after: Option<&u8>| {
                let later = rows.iter().filter(|row| after.is_none_or(|after| *row > after));
                Ok::<_, ()>(later.copied().take(page).collect())
            })
        };
        let mut all = Vec::new();
        let sources = sources.iter().cloned().map(pages).collect();
        shared(sources, |key, places| all.push((key, places)), |_, ()| {});
        all
    }

    #[test]
    fn what_is_in_two_sources_is_found_whatever_the_pages() {
        let sources = [vec![1, 3, 5], vec![2, 3, 4], vec![3, 4, 9]];
        for page in 1..4 {
            assert_eq!(merged(&sources, page), [(3, vec![0, 1, 2]), (4, vec![1, 2])]);
        }
    }

    #[test]
    fn a_source_that_fails_leaves_the_others() {
        let mut errors = Vec::new();
        let mut both = Vec::new();
        let fetch = |fails: bool| {
            Pages::new(move |after: Option<&u8>| match after {
                None => Ok(vec![1]),
                Some(_) if fails => Err("gone"),
                Some(1) => Ok(vec![2]),
                Some(_) => Ok(vec![]),
            })
        };
        let sources = vec![fetch(false), fetch(true), fetch(false)];
        shared(sources, |key, at| both.push((key, at)), |at, error| errors.push((at, error)));
        assert_eq!(both, [(1, vec![0, 1, 2]), (2, vec![0, 2])]);
        assert_eq!(errors, [(1, "gone")]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_counting(
            sources in prop::collection::vec(prop::collection::btree_set(any::<u8>(), 0..40), 0..4),
            page in 1_usize..5,
        ) {
            let rows: Vec<Vec<u8>> =
                sources.iter().map(|set| set.iter().copied().collect()).collect();
            let expected: Vec<(u8, Vec<usize>)> = (0..=u8::MAX)
                .map(|key| {
                    let at = (0..sources.len()).filter(|at| sources[*at].contains(&key));
                    (key, at.collect::<Vec<_>>())
                })
                .filter(|(_, at)| at.len() > 1)
                .collect();
            prop_assert_eq!(merged(&rows, page), expected);
        }
    }
}
