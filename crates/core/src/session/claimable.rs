//! What of its queues and abilities a process may claim, under the orders of a database.

use std::sync::Arc;

use crate::driver::{AbilityLease, Control, Name, Part, Pause};

/// Queues and abilities that are not paused. Made anew when the orders change: a claim compares nothing.
pub(super) struct Claimable {
    pub(super) queues: Arc<[Name]>,
    pub(super) abilities: Arc<[AbilityLease]>,
    under: Option<Arc<[Pause]>>,
}

impl Claimable {
    /// Of these, what the orders leave.
    pub(super) fn under(
        control: &Control,
        queues: &[Name],
        abilities: &Arc<[AbilityLease]>,
    ) -> Self {
        let Some(pauses) = &control.pauses else {
            let (queues, abilities) = (queues.into(), Arc::clone(abilities));
            return Self { queues, abilities, under: None };
        };
        let is_open = |of: fn(&Part) -> bool, name: &str| {
            !pauses.iter().any(|pause| of(&pause.part) && pause.part.is(name))
        };
        let is_queue = |part: &Part| matches!(part, Part::Queue(_));
        let is_ability = |part: &Part| matches!(part, Part::Ability(_));
        let open = abilities.iter().filter(|one| is_open(is_ability, &one.name));
        let abilities: Arc<[_]> = open.cloned().collect();
        let open = queues.iter().filter(|name| !abilities.is_empty() && is_open(is_queue, name));
        Self { queues: open.cloned().collect(), abilities, under: Some(Arc::clone(pauses)) }
    }

    /// Whether it was made under other orders.
    pub(super) fn is_outdated(&self, control: &Control) -> bool {
        self.under != control.pauses
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tools::time::utc_now;

    #[test]
    fn what_is_paused_by_its_name_or_a_pattern_is_left_out() {
        let queues: Vec<Name> = ["post", "gl.tax", "gl.x"].map(Name::from).to_vec();
        let lease = |name: &str| AbilityLease { name: name.into(), grab_for: Duration::ZERO };
        let abilities: Arc<[_]> = ["mail", "sums"].map(lease).into();
        let under = |parts: &[Part]| {
            let pauses = parts.iter().map(|part| Pause::new(part.clone(), "", utc_now())).collect();
            let control = Control { pauses: Some(pauses), ..Control::default() };
            let open = Claimable::under(&control, &queues, &abilities);
            assert!(!open.is_outdated(&control) && open.is_outdated(&Control::default()));
            let queues: Vec<_> = open.queues.iter().map(ToString::to_string).collect();
            let abilities: Vec<_> = open.abilities.iter().map(|one| one.name.to_string()).collect();
            (queues.join(" "), abilities.join(" "))
        };
        let text = |queues: &str, abilities: &str| (queues.to_owned(), abilities.to_owned());
        assert_eq!(under(&[Part::Queue("gl.*".into())]), text("post", "mail sums"));
        assert_eq!(under(&[Part::Ability("mail".into())]), text("post gl.tax gl.x", "sums"));
        assert_eq!(under(&[Part::Ability("*".into())]), text("", ""), "nothing to ask for");
        assert_eq!(under(&[Part::Queue("mail".into())]), text("post gl.tax gl.x", "mail sums"));
        let all = Claimable::under(&Control::default(), &queues, &abilities);
        assert!(all.queues.len() == 3 && Arc::ptr_eq(&all.abilities, &abilities));
    }
}
