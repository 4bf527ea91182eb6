use std::process::{Command, Stdio};

use crate::Error;

/// Runs a helper program to its end and answers what it printed, without the last line break.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Run { program: program.clone(), source })?;
    if !output.status.success() {
        // Scripts such as mariadb-install-db explain themselves on either stream.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim_end().to_owned();
        return Err(Error::Failed { program, status: output.status, output: said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

/// Whether a helper program runs and succeeds; what it prints is nobody's concern.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The first word that starts with a digit, up to a dash: `10.11.6` of `Ver 10.11.6-MariaDB-1`.
pub(crate) fn version_number(text: &str) -> &str {
    text.split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .and_then(|word| word.split('-').next())
        .unwrap_or("of unknown version")
}

#[cfg(test)]
mod tests {
    use super::version_number;

    #[test]
    fn the_version_is_found_in_what_the_servers_print() {
        let postgres = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)";
        let mariadb = "mariadbd  Ver 10.11.6-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64";
        assert_eq!(version_number(postgres), "15.14");
        assert_eq!(version_number(mariadb), "10.11.6");
        assert_eq!(version_number(""), "of unknown version");
    }
}
