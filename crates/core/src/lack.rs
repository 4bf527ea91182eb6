//! Whether the worker processes that a database knows can take a job.

use crate::driver::WorkerSeen;

/// What is missing for jobs of an ability in a queue to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// No process lives.
    Worker,
    /// No live process has the ability.
    Ability,
    /// No live process that has the ability works the queue.
    Queue,
}

/// What is missing, if anything is.
pub(crate) fn lack(workers: &[WorkerSeen], ability: &str, queue: &str) -> Option<Lack> {
    let mut live = workers.iter().filter(|one| one.is_live()).peekable();
    if live.peek().is_none() {
        return Some(Lack::Worker);
    }
    let has = |one: &&WorkerSeen| one.info.abilities.iter().any(|name| **name == *ability);
    let mut able = live.filter(has).peekable();
    if able.peek().is_none() {
        return Some(Lack::Ability);
    }
    let works = able.any(|one| one.info.queues.iter().any(|name| **name == *queue));
    (!works).then_some(Lack::Queue)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fixture::{SOON, seen};

    #[test]
    fn one_live_process_must_have_the_ability_and_work_the_queue() {
        let (now, silent) = (Duration::ZERO, SOON * 2);
        let lack = |workers: &[WorkerSeen]| lack(workers, "mail", "post");
        assert_eq!(lack(&[]), Some(Lack::Worker));
        assert_eq!(lack(&[seen("post", "mail", silent)]), Some(Lack::Worker));
        let other = seen("post", "scale", now);
        assert_eq!(lack(std::slice::from_ref(&other)), Some(Lack::Ability));
        let elsewhere = seen("images", "mail", now);
        assert_eq!(lack(&[other.clone(), elsewhere]), Some(Lack::Queue));
        assert_eq!(lack(&[other, seen("post", "mail", now)]), None);
    }
}
