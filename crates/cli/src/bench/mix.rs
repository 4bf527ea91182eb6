//! What the jobs of the metric `work` do beside nothing, and how many of them.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum as _;
use qudo::{Ability, NewJob};

use super::abilities::{Fail, Nothing, Reply, Retry, Snooze, Status};

/// What an odd job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Nothing odd.
    Plain,
    /// Answers.
    Replying,
    /// Fails for good.
    Failing,
    /// Fails once and runs again at once.
    Retrying,
    /// Is put off once and runs again at once.
    Snoozing,
    /// Has a unique key.
    Keyed,
    /// Leaves a row in the job status.
    Status,
    /// Carries metadata.
    Metadata,
}

impl Kind {
    const ODD: [Self; 7] = [
        Self::Replying,
        Self::Failing,
        Self::Retrying,
        Self::Snoozing,
        Self::Keyed,
        Self::Status,
        Self::Metadata,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// So many of a hundred jobs are odd in this way, the others plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mix {
    pub(super) kind: Kind,
    percent: u32,
}

impl Mix {
    pub(super) const PLAIN: Self = Self { kind: Kind::Plain, percent: 100 };

    /// Plain, then one in a hundred of each kind, then all.
    pub(super) fn each() -> Vec<Self> {
        let of = |percent| Kind::ODD.map(|kind| Self { kind, percent });
        [Self::PLAIN].into_iter().chain(of(1)).chain(of(100)).collect()
    }

    /// The job with this number; `arg` begins with it.
    pub(super) fn job(self, number: u32, arg: String) -> NewJob {
        // Spread evenly, so that each claim has its share.
        let is_odd = number % 100 * 37 % 100 < self.percent;
        match if is_odd { self.kind } else { Kind::Plain } {
            Kind::Plain => Nothing::job(arg).untyped(),
            Kind::Replying => Reply::job(arg).untyped(),
            Kind::Failing => Fail::job(arg).untyped(),
            Kind::Retrying => Retry::job(arg).untyped(),
            Kind::Snoozing => Snooze::job(arg).untyped(),
            Kind::Keyed => {
                let key = arg.clone();
                Nothing::job(arg).uniqkey(key).untyped()
            }
            Kind::Status => Status::job(arg).untyped(),
            Kind::Metadata => Nothing::job(arg).meta("tenant", number).tag("bench").untyped(),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.percent {
            _ if self.kind == Kind::Plain => write!(f, "plain"),
            100 => write!(f, "all {}", self.kind),
            percent => write!(f, "{percent} % {}", self.kind),
        }
    }
}

/// `KIND` or `KIND=PERCENT`.
impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, percent) = text.split_once('=').unwrap_or((text, "100"));
        let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
        let percent = percent.ok_or("the share is a whole number from 1 to 100, in per cent")?;
        let kind = Kind::from_str(kind, false).map_err(|_| {
            let names: Vec<_> = Kind::value_variants().iter().map(Kind::to_string).collect();
            format!("no such mix; there are {}", names.join(", "))
        })?;
        Ok(Self { kind, percent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_a_kind_and_a_share() {
        let mix = |text: &str| text.parse::<Mix>().map(|mix| mix.to_string());
        assert_eq!(mix("keyed").as_deref(), Ok("all keyed"));
        assert_eq!(mix("failing=1").as_deref(), Ok("1 % failing"));
        assert_eq!(mix("plain").as_deref(), Ok("plain"));
        for wrong in ["", "odd", "keyed=0", "keyed=101", "keyed=x", "=1"] {
            assert!(mix(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Mix::each().len(), 15);
    }

    #[test]
    fn as_many_jobs_are_odd_as_the_share_says_and_every_claim_has_some() {
        for percent in [1, 7, 50, 100] {
            let mix = Mix { kind: Kind::Failing, percent };
            let is_odd = |number: &u32| {
                mix.job(*number, format!("{number:010}")).ability() == <Fail as Ability>::NAME
            };
            let hundreds = [0..100, 100..200, 950..1_050];
            for hundred in hundreds {
                assert_eq!(hundred.filter(is_odd).count(), percent as usize);
            }
        }
    }
}
