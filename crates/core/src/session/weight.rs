use crate::driver::Settlement;

/// The bytes that a settlement keeps in memory: its argument, replies, and the jobs that replace it.
pub(crate) fn weight(settlement: &Settlement) -> usize {
    let extras = settlement.extras.as_ref().map_or(0, |extras| {
        let replies = extras.replies.iter().map(|reply| reply.body.len());
        replies.chain(extras.replacements.iter().map(|job| job.facts.size())).sum()
    });
    settlement.job.facts.size() + extras
}
