//! What starts and stops with the work: plugins, then hooks, and hooks on each thread that runs jobs.

use std::sync::Arc;

use qudo_hooks::{Hook, HookError, HookSet, PluginError, WorkerView};

use crate::driver::WorkerInfo;
use crate::error::Error;
use crate::program::Program;
use crate::tools::guard::guard;

/// What was started and is to be stopped, in the order in which it was.
pub(crate) struct Life {
    plugins: usize,
    /// As they were at the start: hooks that are registered later were not started.
    hooks: Arc<HookSet>,
    started: usize,
}

fn view<'a>(program: &'a Program, worker: &'a WorkerInfo) -> WorkerView<'a> {
    WorkerView::new(&worker.name, &program.plugins)
}

impl Life {
    /// Starts plugins in the order of their names and then hooks in theirs; if one fails, stops the plugins and hooks
    /// that started.
    pub(crate) fn start(program: &Program, worker: &WorkerInfo) -> Result<Self, Error> {
        let mut life = Self { plugins: 0, hooks: program.hooks(), started: 0 };
        let started = life.start_all(program, &view(program, worker));
        match started {
            Ok(()) => Ok(life),
            Err(error) => {
                life.stop(program, worker);
                Err(error)
            }
        }
    }

    fn start_all(&mut self, program: &Program, worker: &WorkerView<'_>) -> Result<(), Error> {
        for plugin in program.plugins.live() {
            guard(|| plugin.start(worker)).unwrap_or_else(|panic| {
                let name = plugin.name().to_owned();
                Err(PluginError::Start { name, source: panic.into() })
            })?;
            self.plugins += 1;
        }
        let hooks = Arc::clone(&self.hooks);
        for hook in hooks.iter() {
            let started = guard(|| hook.worker_start(worker))
                .unwrap_or_else(|panic| Err(HookError::new(panic)));
            let hook = || hook.name().to_owned();
            started.map_err(|source| Error::HookNotStarted { hook: hook(), source })?;
            self.started += 1;
        }
        Ok(())
    }

    /// Stops what was started, the last first.
    pub(crate) fn stop(self, program: &Program, worker: &WorkerInfo) {
        let worker = &view(program, worker);
        let hooks: Vec<_> = self.hooks.iter().take(self.started).collect();
        for hook in hooks.into_iter().rev() {
            if let Err(panic) = guard(|| hook.worker_stop(worker)) {
                log::error!("the hook {:?}, worker_stop, {panic}", hook.name());
            }
        }
        for plugin in program.plugins.live().into_iter().take(self.plugins).rev() {
            if let Err(panic) = guard(|| plugin.stop(worker)) {
                log::error!("the plugin {:?}, stop, {panic}", plugin.name());
            }
        }
    }
}

/// A thread that runs jobs, from its start to its end.
pub(super) struct ThreadLife<'a> {
    hooks: Arc<HookSet>,
    view: WorkerView<'a>,
}

impl<'a> ThreadLife<'a> {
    pub(super) fn start(program: &'a Program, worker: &'a WorkerInfo) -> Self {
        let life = Self { hooks: program.hooks(), view: view(program, worker) };
        life.tell("thread_start", |hook, view| hook.thread_start(view));
        life
    }

    fn tell(&self, point: &str, call: fn(&dyn Hook, &WorkerView<'_>)) {
        for hook in self.hooks.iter() {
            if let Err(panic) = guard(|| call(hook, &self.view)) {
                log::error!("the hook {:?}, {point}, {panic}", hook.name());
            }
        }
    }
}

impl Drop for ThreadLife<'_> {
    fn drop(&mut self) {
        self.tell("thread_stop", |hook, view| hook.thread_stop(view));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use qudo_hooks::{CodecSet, Plugin, PluginSet, SourceLocation};

    use super::*;
    use crate::ability::AbilitySet;
    use crate::fixture::worker;
    use crate::options::Options;

    type Lines = Arc<Mutex<Vec<String>>>;

    fn note(lines: &Lines, line: &str) {
        lines.lock().expect("no panic").push(line.to_owned());
    }

    struct Pool(Lines);

    impl Plugin for Pool {
        const NAME: &'static str = "pool";
        type Options = ();

        fn build((): ()) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Self(Lines::default()))
        }

        fn start(
            &self,
            worker: &WorkerView<'_>,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            note(&self.0, &format!("pool starts for {}", worker.name()));
            Ok(())
        }

        fn stop(&self, _: &WorkerView<'_>) {
            note(&self.0, "pool stops");
            panic!("on purpose");
        }
    }

    struct Lived(&'static str, Lines);

    impl Hook for Lived {
        fn name(&self) -> &'static str {
            self.0
        }

        fn worker_start(&self, worker: &WorkerView<'_>) -> Result<(), HookError> {
            worker.plugin::<Pool>()?;
            match self.0 {
                "c refuses" => return Err(HookError::new("not today")),
                "c panics" => panic!("not today"),
                _ => {}
            }
            note(&self.1, &format!("{} starts", self.0));
            Ok(())
        }

        fn worker_stop(&self, _: &WorkerView<'_>) {
            note(&self.1, &format!("{} stops", self.0));
        }

        fn thread_start(&self, _: &WorkerView<'_>) {
            note(&self.1, &format!("{} has a thread", self.0));
        }

        fn thread_stop(&self, _: &WorkerView<'_>) {
            note(&self.1, &format!("{} has none", self.0));
        }
    }

    fn program(hooks: &[&'static str], lines: &Lines) -> Program {
        let (mut set, mut plugins) = (HookSet::default(), PluginSet::default());
        for name in hooks {
            let hook = Arc::new(Lived(name, Arc::clone(lines)));
            set.insert(hook, SourceLocation::new("here", 1)).expect("is new");
        }
        plugins.insert_live(Pool(Arc::clone(lines))).expect("is new");
        let (abilities, codecs) = (AbilitySet::default(), CodecSet::default());
        Program::new(Options::default(), abilities, set, plugins, codecs, None)
    }

    #[test]
    fn plugins_start_before_hooks_and_stop_after_them() {
        let lines = Lines::default();
        let (program, worker) = (program(&["b", "a"], &lines), worker());
        let life = Life::start(&program, &worker).expect("starts");
        drop(ThreadLife::start(&program, &worker));
        life.stop(&program, &worker);
        let expected = [
            &*format!("pool starts for {}", worker.name),
            "a starts",
            "b starts",
            "a has a thread",
            "b has a thread",
            "a has none",
            "b has none",
            "b stops",
            "a stops",
            "pool stops",
        ];
        assert_eq!(*lines.lock().expect("no panic"), expected);
    }

    #[test]
    fn where_one_does_not_start_those_before_it_are_stopped() {
        for bad in ["c refuses", "c panics"] {
            let lines = Lines::default();
            let (program, worker) = (program(&["a", bad, "d"], &lines), worker());
            let error = Life::start(&program, &worker).map(|_| ()).expect_err("one refuses");
            let text = error.to_string();
            assert!(text.contains(bad) && text.contains("not today"), "{text}");
            let told = lines.lock().expect("no panic");
            assert_eq!(told[1..], ["a starts", "a stops", "pool stops"]);
        }
    }
}
