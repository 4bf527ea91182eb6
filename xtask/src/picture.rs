//! The picture of the architecture in the README.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Draw the picture of the architecture that the README shows.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The file to write.
    #[arg(long, default_value = "docs/architecture.svg")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match std::fs::write(&arguments.out, draw()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}: {error}", arguments.out.display());
            ExitCode::FAILURE
        }
    }
}

const WIDTH: u32 = 790;
const HEIGHT: u32 = 330;

/// A rectangle with a title and lines of text.
struct Block {
    at: (u32, u32),
    size: (u32, u32),
    fill: &'static str,
    title: &'static str,
    lines: &'static [&'static str],
}

const CLIENT: &str = "#e8f1fa";
const DATABASE: &str = "#fdf0e2";
const WORKER: &str = "#e6f5ef";

const BLOCKS: [Block; 8] = [
    Block {
        at: (20, 50),
        size: (220, 70),
        fill: CLIENT,
        title: "web service",
        lines: &["manager.enqueue(job)", "ticket.wait(limit)"],
    },
    Block {
        at: (20, 150),
        size: (220, 70),
        fill: CLIENT,
        title: "your transaction",
        lines: &["manager.enqueue_in(conn, job)", "order and job: one commit"],
    },
    Block {
        at: (20, 250),
        size: (220, 50),
        fill: CLIENT,
        title: "qudo migrate, status, audit",
        lines: &["for whoever is on call"],
    },
    Block {
        at: (330, 40),
        size: (180, 70),
        fill: DATABASE,
        title: "PostgreSQL",
        lines: &["jobs, leases, keys,", "replies, failures"],
    },
    Block {
        at: (330, 140),
        size: (180, 60),
        fill: DATABASE,
        title: "MySQL, MariaDB",
        lines: &["the same tables"],
    },
    Block {
        at: (330, 230),
        size: (180, 60),
        fill: DATABASE,
        title: "SQLite",
        lines: &["the same tables; a spool"],
    },
    Block {
        at: (590, 50),
        size: (180, 100),
        fill: WORKER,
        title: "service binary",
        lines: &["manager.work()", "abilities, hooks, plugins,", "one thread a job"],
    },
    Block {
        at: (590, 190),
        size: (180, 80),
        fill: WORKER,
        title: "another one",
        lines: &["takes over what a dead", "process left"],
    },
];

const ARROWS: [((u32, u32), (u32, u32)); 10] = [
    ((240, 80), (330, 70)),
    ((240, 90), (330, 165)),
    ((240, 185), (330, 175)),
    ((240, 275), (330, 265)),
    ((590, 80), (510, 70)),
    ((590, 100), (510, 165)),
    ((590, 125), (510, 250)),
    ((590, 215), (510, 85)),
    ((590, 230), (510, 175)),
    ((590, 245), (510, 262)),
];

fn draw() -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\" role=\"img\" aria-label=\"Programs that enqueue, databases that hold the jobs, service \
         binaries that work them\">\n<defs><marker id=\"tip\" markerWidth=\"8\" markerHeight=\"8\" refX=\"7\" \
         refY=\"4\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"#555\"/></marker></defs>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    let mut add = |text: String| svg.push_str(&text);
    for (x, title) in [(130, "enqueue"), (420, "store"), (680, "claim, run, settle")] {
        add(format!(
            "<text x=\"{x}\" y=\"26\" text-anchor=\"middle\" fill=\"#555\">{title}</text>\n"
        ));
    }
    for ((x1, y1), (x2, y2)) in ARROWS {
        add(format!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#555\" marker-end=\"url(#tip)\"/>\n"
        ));
    }
    for block in &BLOCKS {
        add(block.draw());
    }
    svg.push_str("</svg>\n");
    svg
}

impl Block {
    fn draw(&self) -> String {
        let ((x, y), (width, height)) = (self.at, self.size);
        let mut text = format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"{}\" stroke=\"#888\"/>\n\
             <text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}</text>\n",
            self.fill,
            x + 10,
            y + 20,
            self.title
        );
        for (line, below) in self.lines.iter().zip(1..) {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{}\">{line}</text>",
                x + 10,
                y + 20 + 18 * below
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_in_the_repository_is_the_one_that_is_drawn() {
        assert_eq!(
            include_str!("../../docs/architecture.svg"),
            draw(),
            "run `cargo xtask picture`"
        );
    }
}
