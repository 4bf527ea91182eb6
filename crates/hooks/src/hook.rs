use crate::{Decision, Failure, HookError, JobDraft, JobView, Outcome, PluginNeed, WorkerView};

/// Code around the life of every job: metrics, policies, logging, retry rules.
///
/// Every method has a default that does nothing. Hooks run in the order of
/// ([`order`](Self::order), [`name`](Self::name)), on the thread that each point names. No
/// connection of qudo's is held meanwhile, except by `pre_enqueue` where the job is stored in a
/// transaction of the caller's or of `complete_in`. A panic in a hook is caught and treated as
/// its error.
pub trait Hook: Send + Sync {
    /// The hook's unique name, for order, removal and messages.
    fn name(&self) -> &str;

    /// Lower runs earlier; hooks of the same order run by name. 0 by default.
    fn order(&self) -> i32 {
        0
    }

    /// Whether the hook is called for jobs of this ability; all by default.
    fn applies_to(&self, ability: &str) -> bool {
        let _ = ability;
        true
    }

    /// The plugins without which it cannot work; none by default. The manager refuses to begin to work if
    /// one is missing; of a hook that is registered later nobody asks.
    fn needs(&self) -> Vec<PluginNeed> {
        Vec::new()
    }

    /// Called on the enqueuing thread before the argument is encoded; may change the draft.
    ///
    /// # Errors
    ///
    /// An error vetoes the job: nothing is stored and the caller of enqueue gets the error.
    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        let _ = job;
        Ok(())
    }

    /// Called after the insert was committed: on the enqueuing thread, and for a job that took the place of another on
    /// the thread on which [`post_settle`](Self::post_settle) is called for that one.
    ///
    /// An id that is enqueued again while its job lives counts as new and is told again. It cannot fail the enqueue; a
    /// panic is logged.
    fn post_enqueue(&self, job: &JobView<'_>) {
        let _ = job;
    }

    /// Called on the enqueuing thread after a job was stored in a transaction of the caller's, which is not committed yet: after
    /// a rollback there is no job, and nobody tells. The [database](JobView::database) is named where the job or the manager
    /// names only one. A panic is logged.
    fn post_enqueue_in(&self, job: &JobView<'_>) {
        let _ = job;
    }

    /// Called on the worker thread after the claim, before the argument is decoded.
    ///
    /// # Errors
    ///
    /// A veto aborts or snoozes the job; any other error fails the attempt.
    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        let _ = job;
        Ok(())
    }

    /// Called around the ability on the worker thread; must call `next` exactly once.
    ///
    /// A hook that does not call `next`, or panics before it does, fails the attempt.
    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        let _ = job;
        next();
    }

    /// Called on the worker thread when an attempt failed; may change what happens next.
    ///
    /// Not called for aborts, which the ability itself made final. `decision` starts with the
    /// decision of the ability's retry rule.
    ///
    /// # Errors
    ///
    /// An error is logged and leaves the decision as it was.
    fn on_failure(
        &self,
        job: &JobView<'_>,
        failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        let _ = (job, failure, decision);
        Ok(())
    }

    /// Called on the worker thread after every run, whatever the outcome, before it is settled; after
    /// the commit where the ability used `complete_in`.
    ///
    /// It cannot change the outcome; a panic is logged.
    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        let _ = (job, outcome);
    }

    /// Called after the outcome was committed: on the thread that settles runs, of which each database has one, and with
    /// `complete_in` and `work_once` on the thread that ran the job. It should be short, because the next settlement
    /// waits for it, and must not wait for a job. Not called for a run whose lease was lost, which changed nothing. It may be
    /// missed where the answer to a settlement, or to the commit of a `complete_in`, was lost, because nobody can tell then which of two tries was stored. So
    /// count what has to be exact in the database.
    ///
    /// The argument is not kept until then and is empty. A [`Failure`] has the kind, class and message of the
    /// error, but not the error itself. A panic is logged.
    fn post_settle(&self, job: &JobView<'_>, outcome: &Outcome) {
        let _ = (job, outcome);
    }

    /// Called after it was committed that a job ended because an operator cancelled it: where it ran, after
    /// [`post_settle`](Self::post_settle) and on the same thread; where it waited, or was ended by force, in the process that did
    /// it, on the thread that called [`cancel`] or a verb over many jobs, or on the thread that cleans up.
    ///
    /// The argument is empty. It may be missed where `post_settle` may be. A panic is logged.
    ///
    /// [`cancel`]: https://docs.rs/qudo/latest/qudo/struct.Manager.html#method.cancel
    fn post_cancel(&self, job: &JobView<'_>, reason: &str) {
        let _ = (job, reason);
    }

    /// Called when the manager begins to work, after its plugins are started and before it claims a job, on the thread
    /// that calls `work()` or `start()`. Not called by `work_once`, nor for a hook that is registered later.
    ///
    /// # Errors
    ///
    /// Any obstacle: the work then does not begin, and what was started before is stopped.
    fn worker_start(&self, worker: &WorkerView<'_>) -> Result<(), HookError> {
        let _ = worker;
        Ok(())
    }

    /// Called when the work has ended and what ran is settled, or the shutdown timeout is over: then jobs, and hooks around
    /// them, may still run. The last that started is the first that stops. A panic is logged.
    fn worker_stop(&self, worker: &WorkerView<'_>) {
        let _ = worker;
    }

    /// Called on each thread of `work` or `start` that runs jobs, before its first job; not by `work_once`. A panic is
    /// logged.
    fn thread_start(&self, worker: &WorkerView<'_>) {
        let _ = worker;
    }

    /// Called on each thread that runs jobs, after its last job; not called if that job still runs when the
    /// process ends. A panic is logged.
    fn thread_stop(&self, worker: &WorkerView<'_>) {
        let _ = worker;
    }
}

/// A hook that the program keeps after registration too, for instance to ask it what it saw.
impl<H: Hook + ?Sized> Hook for std::sync::Arc<H> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn order(&self) -> i32 {
        (**self).order()
    }

    fn applies_to(&self, ability: &str) -> bool {
        (**self).applies_to(ability)
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        (**self).pre_enqueue(job)
    }

    fn post_enqueue(&self, job: &JobView<'_>) {
        (**self).post_enqueue(job);
    }

    fn post_enqueue_in(&self, job: &JobView<'_>) {
        (**self).post_enqueue_in(job);
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        (**self).pre_work(job)
    }

    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        (**self).around_work(job, next);
    }

    fn on_failure(
        &self,
        job: &JobView<'_>,
        failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        (**self).on_failure(job, failure, decision)
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        (**self).post_work(job, outcome);
    }

    fn needs(&self) -> Vec<PluginNeed> {
        (**self).needs()
    }

    fn post_settle(&self, job: &JobView<'_>, outcome: &Outcome) {
        (**self).post_settle(job, outcome);
    }

    fn post_cancel(&self, job: &JobView<'_>, reason: &str) {
        (**self).post_cancel(job, reason);
    }

    fn worker_start(&self, worker: &WorkerView<'_>) -> Result<(), HookError> {
        (**self).worker_start(worker)
    }

    fn worker_stop(&self, worker: &WorkerView<'_>) {
        (**self).worker_stop(worker);
    }

    fn thread_start(&self, worker: &WorkerView<'_>) {
        (**self).thread_start(worker);
    }

    fn thread_stop(&self, worker: &WorkerView<'_>) {
        (**self).thread_stop(worker);
    }
}
