//! How rows are shown: a table on a terminal, tabs in a pipe, JSON where it is asked for.

use std::io::{ErrorKind, IsTerminal, Write, stdout};

use comfy_table::{ContentArrangement, Table, presets::NOTHING};

/// A cell of a table on a terminal has so many characters at most; pipes and JSON have all of them.
const WIDEST: usize = 80;

/// Prints rows: on a terminal as a table with a head, elsewhere a line for each row with tabs between the cells.
pub(crate) fn print_rows(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    if stdout().is_terminal() {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(head);
        for row in rows {
            table.add_row(row.iter().map(|cell| shortened(&one_line(cell))));
        }
        say(&table.to_string());
    } else {
        for row in rows {
            say(&row.iter().map(|cell| one_line(cell)).collect::<Vec<_>>().join("\t"));
        }
    }
}

/// Prints a line beside a work that goes on, whether or not somebody reads it.
pub(crate) fn say_aside(line: &str) {
    // That nobody reads it any more ends nothing.
    let _gone = writeln!(stdout(), "{line}");
}

/// Prints a line. A reader that has gone, as `head` goes, ends the command; what cannot be written is an error.
pub(crate) fn say(line: &str) {
    match writeln!(stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("qudo: cannot write the answer: {error}");
            std::process::exit(2);
        }
    }
}

/// A cell is no more than a line, whatever is in it.
fn one_line(cell: &str) -> String {
    cell.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

fn shortened(cell: &str) -> String {
    if cell.chars().count() <= WIDEST {
        return cell.to_owned();
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_and_not_too_wide() {
        assert_eq!(one_line("a\n\tb"), "a  b");
        assert_eq!(shortened(&"ä".repeat(80)).chars().count(), 80);
        assert!(shortened(&"ä".repeat(81)).ends_with("ä…"));
    }
}
