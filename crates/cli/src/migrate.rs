use qudo::Manager;

use crate::output::say;
use crate::with_causes;

/// Migrates each database, whatever becomes of the others; `false` if one failed.
pub(crate) fn run(manager: &Manager, force: bool) -> bool {
    let mut complete = true;
    for on in manager.migrate_each(force) {
        match on.answer {
            Ok(applied) if applied.is_empty() => say(&format!("{}: up to date", on.database)),
            Ok(applied) => say(&format!("{}: applied {}", on.database, applied.join(", "))),
            Err(error) => {
                eprintln!("qudo: {}", with_causes(&error));
                complete = false;
            }
        }
    }
    complete
}
