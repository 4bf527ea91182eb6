//! What a data source name may say about how qudo uses the database, after its `?`.
//!
//! The client libraries do not know these parameters, so they are taken out. The others stay as
//! they are written: a library may decode them by rules of its own.

/// Parameters of qudo's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// `durability=relaxed`: settles do not wait for the disk.
    pub(crate) relaxed: bool,
    /// `pooler=transaction`: each transaction may meet another session of the server.
    pub(crate) pooler: bool,
}

impl Options {
    /// Splits a query, without its `?`, into our parameters and the rest.
    pub(crate) fn split(query: &str) -> Result<(Self, String), String> {
        let (mut options, mut rest) = (Self::default(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("durability", value) => {
                    options.relaxed = choice("durability", value, ["full", "relaxed"])?;
                }
                ("pooler", value) => {
                    options.pooler = choice("pooler", value, ["none", "transaction"])?;
                }
                _ => rest.push(pair),
            }
        }
        Ok((options, rest.join("&")))
    }

    /// Takes our parameters out of a URL.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn take(url: &mut url::Url) -> Result<Self, String> {
        let (options, rest) = Self::split(url.query().unwrap_or_default())?;
        url.set_query((!rest.is_empty()).then_some(&rest));
        Ok(options)
    }
}

/// Whether a parameter has the second of its two values.
fn choice(name: &str, value: &str, [no, yes]: [&str; 2]) -> Result<bool, String> {
    if value == yes {
        Ok(true)
    } else if value == no {
        Ok(false)
    } else {
        Err(format!("{name} is {no} or {yes}, not {value:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn our_parameters_are_taken_out_and_the_others_stay_as_written() {
        let query = "options=-c%20work_mem%3D4MB&durability=relaxed&a+b=c&pooler=transaction";
        let (options, rest) = Options::split(query).expect("valid");
        assert_eq!(options, Options { relaxed: true, pooler: true });
        assert_eq!(rest, "options=-c%20work_mem%3D4MB&a+b=c");
        let (options, rest) = Options::split("durability=full&pooler=none").expect("valid");
        assert_eq!((options, &*rest), (Options::default(), ""));
        for wrong in ["durability=none", "durability", "pooler=session"] {
            assert!(Options::split(wrong).expect_err("unknown").contains(" is "), "{wrong}");
        }
    }
}
