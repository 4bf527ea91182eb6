//! Whether a database can be used: up → suspect → down → probing → up.
//!
//! One state, changed in one place. Nothing here calls a database or starts a thread: whoever is told that the state
//! changed does that.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::tools::random::jitter;
use crate::tools::sync::Mutex;
use crate::tools::time::{Instant, utc_now};

/// The first probe of a dead database comes this soon; each failure doubles the pause up to
/// `retry_seconds`. A server that merely restarts is back within a second.
pub(crate) const FIRST_PROBE: Duration = Duration::from_millis(250);

/// A database that fails again within this time after its first probe found it well is probed later: what
/// ails it does not show in a probe, and it would go down and up four times a second.
pub(crate) const FLAP: Duration = Duration::from_secs(10);

/// Whether a database can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseState {
    /// It is used.
    Up,
    /// It is left alone until the next probe.
    Down,
    /// A probe is on its way.
    Probing,
}

impl DatabaseState {
    /// Whether jobs are stored and claimed there now.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }

    /// The word for logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Probing => "probing",
        }
    }
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Up, but a call was not answered in time, and a probe is on its way to find out why.
    Suspect,
    Down,
    Probing,
}

/// The health of one database, as far as this process knows.
pub(crate) struct Health(Mutex<Inner>);

struct Inner {
    state: State,
    /// Grows whenever a probe finds the database well: what an older call says of it is out of date.
    epoch: u64,
    since: DateTime<Utc>,
    reason: Option<String>,
    /// It is out of use because another name leads to it too.
    second_name: bool,
    next_probe: Option<Instant>,
    /// When it came up, and how soon it is probed first if it fails again at once.
    came_up: Option<(Instant, Duration)>,
}

/// What reports tell.
pub(crate) struct Told {
    pub(crate) state: DatabaseState,
    pub(crate) since: DateTime<Utc>,
    pub(crate) reason: Option<String>,
    pub(crate) next_probe: Option<Duration>,
}

/// Why a database is taken out of use.
pub(crate) enum Blame {
    /// What a call of this epoch met; out of date if a probe has found the database well since.
    Call(u64),
    /// What is known of it now.
    Known,
    /// Another name leads to it too.
    SecondName,
}

impl Default for Health {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            state: State::Up,
            epoch: 0,
            since: utc_now(),
            reason: None,
            second_name: false,
            next_probe: None,
            came_up: None,
        }))
    }
}

impl Health {
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.0.lock().state, State::Up | State::Suspect)
    }

    /// Whether it is up and no probe is finding out if it hangs.
    pub(crate) fn is_trusted(&self) -> bool {
        self.0.lock().state == State::Up
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.0.lock().state == State::Suspect
    }

    pub(crate) fn is_second_name(&self) -> bool {
        self.0.lock().second_name
    }

    /// To be taken before a call begins, for [`Blame::Call`].
    pub(crate) fn epoch(&self) -> u64 {
        self.0.lock().epoch
    }

    /// Why it is down; `None` while it is up.
    pub(crate) fn reason(&self) -> Option<String> {
        let inner = self.0.lock();
        let is_down = matches!(inner.state, State::Down | State::Probing);
        is_down.then(|| inner.reason.clone().unwrap_or_default())
    }

    pub(crate) fn told(&self) -> Told {
        let inner = self.0.lock();
        let state = match inner.state {
            State::Up | State::Suspect => DatabaseState::Up,
            State::Down => DatabaseState::Down,
            State::Probing => DatabaseState::Probing,
        };
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        Told {
            state,
            since: inner.since,
            reason: inner.reason.clone(),
            next_probe: inner.next_probe.map(left),
        }
    }

    /// A call of this epoch was not answered in time. Answers whether somebody has to find out why.
    pub(crate) fn suspect(&self, epoch: u64) -> bool {
        let mut inner = self.0.lock();
        let is_news = inner.state == State::Up && inner.epoch == epoch;
        if is_news {
            inner.state = State::Suspect;
        }
        is_news
    }

    /// What was suspected is not so, or nobody could find out. Answers whether it was still a suspect.
    pub(crate) fn acquit(&self) -> bool {
        let mut inner = self.0.lock();
        let was_suspect = inner.state == State::Suspect;
        if was_suspect {
            inner.state = State::Up;
            inner.epoch += 1;
        }
        was_suspect
    }

    /// Takes it out of use. Answers how soon it is to be probed, `longest` at most, if it was in use.
    pub(crate) fn fall(&self, reason: &str, blame: &Blame, longest: Duration) -> Option<Duration> {
        let mut inner = self.0.lock();
        inner.second_name |= matches!(blame, Blame::SecondName);
        let is_old = matches!(blame, Blame::Call(epoch) if *epoch != inner.epoch);
        if is_old || !matches!(inner.state, State::Up | State::Suspect) {
            return None;
        }
        inner.state = State::Down;
        inner.since = utc_now();
        inner.reason = Some(reason.to_owned());
        let flapped = inner.came_up.filter(|(at, _)| at.elapsed() < FLAP);
        let first = jitter(flapped.map_or(FIRST_PROBE, |(_, first)| first)).min(longest);
        inner.next_probe = Some(Instant::now() + first);
        Some(first)
    }

    /// A probe begins.
    pub(crate) fn begin_probe(&self) {
        let mut inner = self.0.lock();
        if inner.state == State::Down {
            inner.state = State::Probing;
        }
    }

    /// A probe found it as it was; the next comes after this pause.
    pub(crate) fn note_probe(&self, reason: String, pause: Duration) {
        let mut inner = self.0.lock();
        if inner.state == State::Probing {
            inner.state = State::Down;
        }
        inner.reason = Some(reason);
        inner.next_probe = Some(Instant::now() + pause);
    }

    /// A probe found it well. `again` is how soon it is to be probed if it fails again at once. Answers for how
    /// long it was down, if it was.
    pub(crate) fn rise(&self, again: Duration) -> Option<Duration> {
        let mut inner = self.0.lock();
        if !matches!(inner.state, State::Down | State::Probing) {
            return None;
        }
        let down_for = (utc_now() - inner.since).to_std().unwrap_or_default();
        *inner = Inner {
            state: State::Up,
            epoch: inner.epoch + 1,
            since: utc_now(),
            reason: None,
            second_name: false,
            next_probe: None,
            came_up: Some((Instant::now(), again)),
        };
        Some(down_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn down(health: &Health) -> Option<Duration> {
        health.fall("refused", &Blame::Known, LONG)
    }

    #[test]
    fn a_database_goes_down_once_and_says_why_until_it_is_well() {
        let health = Health::default();
        assert!(health.is_up() && health.is_trusted() && health.reason().is_none());
        assert!(down(&health).expect("it was up") <= FIRST_PROBE * 2);
        assert_eq!(down(&health), None, "it is down already");
        assert_eq!(health.reason().as_deref(), Some("refused"));
        assert_eq!(health.told().state, DatabaseState::Down);
        health.begin_probe();
        assert_eq!(health.told().state, DatabaseState::Probing);
        assert!(!health.is_up());
        health.note_probe("still refused".to_owned(), LONG);
        assert_eq!(health.reason().as_deref(), Some("still refused"));
        assert!(health.told().next_probe > Some(LONG / 2));
        health.begin_probe();
        assert!(health.rise(FIRST_PROBE).is_some());
        assert!(health.is_trusted() && health.reason().is_none());
        assert_eq!(health.rise(FIRST_PROBE), None, "it is up already");
    }

    #[test]
    fn what_a_call_says_that_began_before_a_probe_found_it_well_is_out_of_date() {
        let health = Health::default();
        let before = health.epoch();
        down(&health);
        health.rise(FIRST_PROBE);
        assert_eq!(health.fall("old news", &Blame::Call(before), LONG), None);
        assert!(!health.suspect(before));
        assert!(health.fall("news", &Blame::Call(health.epoch()), LONG).is_some());
    }

    #[test]
    fn a_suspect_is_up_but_not_trusted_until_somebody_found_out() {
        let health = Health::default();
        assert!(health.suspect(health.epoch()));
        assert!(!health.suspect(health.epoch()), "somebody finds out already");
        assert!(health.is_up() && health.is_suspect() && !health.is_trusted());
        let before = health.epoch();
        assert!(health.acquit());
        assert!(health.is_trusted() && health.epoch() > before);
        health.suspect(health.epoch());
        assert!(down(&health).is_some(), "a suspect may be down after all");
        assert!(!health.acquit() && !health.is_up(), "what a slow probe says comes too late");
    }

    #[test]
    fn one_that_fails_again_at_once_is_probed_later_each_time() {
        let health = Health::default();
        let mut again = FIRST_PROBE;
        for _ in 0..6 {
            let pause = down(&health).expect("it was up");
            assert!(pause >= again.mul_f64(0.7) && pause <= LONG, "{pause:?}");
            again *= 2;
            health.rise(again);
        }
        assert_eq!(health.fall("x", &Blame::Known, Duration::ZERO), Some(Duration::ZERO));
    }

    #[test]
    fn a_second_name_is_known_as_such_until_the_database_is_back() {
        let health = Health::default();
        down(&health);
        health.fall("the same as another", &Blame::SecondName, LONG);
        assert!(health.is_second_name());
        health.rise(FIRST_PROBE);
        assert!(!health.is_second_name());
    }
}
