//! What is wrong with what lies under one id. No database is asked here.

use super::Flaw;
use crate::driver::{Place, Traces};

/// The flaws of a job within one database.
pub(crate) fn flaws(traces: &Traces) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    match (&traces.facts, traces.places.as_slice()) {
        (Some(_), []) => flaws.push(Flaw::NoPlace),
        (None, [_, ..]) => flaws.push(Flaw::NoFacts(traces.places.clone())),
        (Some(_), [_, _, ..]) => flaws.push(Flaw::ManyPlaces(traces.places.clone())),
        _ => {}
    }
    if traces.facts.is_some() && traces.misfiled {
        flaws.push(Flaw::Misfiled);
    }
    if traces.ownerless {
        flaws.push(Flaw::NoWorker);
    }
    for (ability, uniqkey) in &traces.keys {
        let has = traces
            .facts
            .as_ref()
            .is_some_and(|(own, key)| own == ability && key.as_ref() == Some(uniqkey));
        if !has {
            let (ability, uniqkey) = (ability.clone(), uniqkey.clone());
            flaws.push(Flaw::KeyWithoutJob { ability, uniqkey });
        }
    }
    if let Some((_, Some(_))) = &traces.facts
        && traces.holder != Some(traces.id)
    {
        flaws.push(Flaw::JobWithoutKey { holder: traces.holder });
    }
    flaws
}

/// Whether a job may live in both of these databases at once: on its way from one to the other.
pub(super) fn is_on_its_way(one: &Traces, other: &Traces) -> bool {
    matches!(
        (one.places.as_slice(), other.places.as_slice()),
        ([Place::Leaving], [Place::Arriving]) | ([Place::Arriving], [Place::Leaving])
    )
}

#[cfg(test)]
mod tests {
    use qudo_hooks::JobId;

    use super::*;

    fn sound() -> Traces {
        let id = JobId::new();
        Traces {
            facts: Some(("mail".to_owned(), Some("k".to_owned()))),
            places: vec![Place::Ready],
            keys: vec![("mail".to_owned(), "k".to_owned())],
            holder: Some(id),
            ..Traces::none(id)
        }
    }

    #[test]
    fn a_job_in_one_place_with_its_facts_and_its_key_is_sound() {
        assert_eq!(flaws(&sound()), []);
        assert_eq!(flaws(&Traces::none(JobId::new())), []);
    }

    #[test]
    fn each_flaw_has_its_name() {
        let other = JobId::new();
        let key = || ("mail".to_owned(), "k".to_owned());
        let without = Flaw::KeyWithoutJob { ability: key().0, uniqkey: key().1 };
        for (traces, expected) in [
            (Traces { places: vec![], ..sound() }, vec![Flaw::NoPlace]),
            (
                Traces { facts: None, keys: vec![], ..sound() },
                vec![Flaw::NoFacts(vec![Place::Ready])],
            ),
            (
                Traces { places: vec![Place::Leased, Place::Ready], ..sound() },
                vec![Flaw::ManyPlaces(vec![Place::Leased, Place::Ready])],
            ),
            (Traces { misfiled: true, ..sound() }, vec![Flaw::Misfiled]),
            (Traces { ownerless: true, ..sound() }, vec![Flaw::NoWorker]),
            (Traces { facts: None, places: vec![], ..sound() }, vec![without.clone()]),
            (Traces { facts: Some((key().0, None)), ..sound() }, vec![without]),
            (
                Traces { holder: None, keys: vec![], ..sound() },
                vec![Flaw::JobWithoutKey { holder: None }],
            ),
            (
                Traces { holder: Some(other), keys: vec![], ..sound() },
                vec![Flaw::JobWithoutKey { holder: Some(other) }],
            ),
        ] {
            assert_eq!(flaws(&traces), expected);
        }
    }

    #[test]
    fn only_a_leg_of_a_move_is_in_two_databases() {
        let at = |place| Traces { places: vec![place], ..sound() };
        assert!(is_on_its_way(&at(Place::Leaving), &at(Place::Arriving)));
        assert!(is_on_its_way(&at(Place::Arriving), &at(Place::Leaving)));
        assert!(!is_on_its_way(&at(Place::Leaving), &at(Place::Ready)));
        assert!(!is_on_its_way(&at(Place::Ready), &at(Place::Ready)));
    }
}
