use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Why there is no password.
pub type PasswordError = Box<dyn std::error::Error + Send + Sync>;

type Ask = Arc<dyn Fn() -> Result<String, PasswordError> + Send + Sync>;

/// Where a driver gets the password of a database: asked again for each new connection, so that a
/// password can be changed while programs work.
///
/// ```
/// # use qudo_core::driver::Password;
/// let password = Password::from_fn(|| Ok("from a vault".to_owned()));
/// assert_eq!(format!("{password:?}"), "Password");
/// assert_eq!(password.ask().unwrap(), "from a vault");
/// ```
#[derive(Clone)]
pub struct Password(Ask);

impl Password {
    /// Asks a function, on the thread that connects; it should answer within a second or two.
    pub fn from_fn(
        ask: impl Fn() -> Result<String, PasswordError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }

    /// Reads a file, without the line end at its end.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::from_fn(move || {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                PasswordError::from(format!("the password's file {}: {error}", path.display()))
            })?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
        })
    }

    /// Reads a variable of the environment.
    pub fn from_env(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::from_fn(move || {
            std::env::var(&name).map_err(|error| {
                // Not what it holds, should that be no text.
                let why = match error {
                    std::env::VarError::NotPresent => "is not set",
                    std::env::VarError::NotUnicode(_) => "is not UTF-8",
                };
                format!("the password's variable {name} {why}").into()
            })
        })
    }

    /// The password now.
    ///
    /// # Errors
    ///
    /// The error of the source; for a file or a variable it has the name.
    pub fn ask(&self) -> Result<String, PasswordError> {
        (self.0)()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_each_time_and_its_line_end_left_out() {
        let place = std::env::temp_dir().join(format!("qudo-password-{}", std::process::id()));
        let password = Password::from_file(&place);
        let error = password.ask().expect_err("is not there").to_string();
        assert!(error.contains("qudo-password"), "{error}");
        for (text, expected) in
            [("one\n", "one"), ("two\r\n", "two"), ("three", "three"), ("\n\n", "\n")]
        {
            std::fs::write(&place, text).expect("writes");
            assert_eq!(password.ask().expect("reads"), expected);
        }
        std::fs::remove_file(&place).expect("removes");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = Password::from_env("QUDO_NOBODY_SETS_THIS").ask().expect_err("missing");
        assert!(error.to_string().contains("QUDO_NOBODY_SETS_THIS is not set"), "{error}");
    }
}
