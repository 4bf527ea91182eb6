use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, Ident, Lit, LitStr, Token};

const KNOWN: &str = "name, queue, codec, priority, max_retries, max_crashes, retry_delay, \
                     grab_for, set_job_status";

/// The options of `#[ability(..)]`.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    /// Calls on `AbilityOptions`, in the order written.
    pub(crate) calls: Vec<TokenStream>,
}

struct Pair {
    name: Ident,
    value: Expr,
}

impl Parse for Pair {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name: Ident = input.parse()?;
        if !input.peek(Token![=]) {
            return Err(syn::Error::new(name.span(), format!("expected `{name} = value`")));
        }
        input.parse::<Token![=]>()?;
        Ok(Self { name, value: input.parse()? })
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for pair in Punctuated::<Pair, Token![,]>::parse_terminated(input)? {
            let (name, value) = (pair.name.to_string(), pair.value);
            if seen.contains(&name) {
                return Err(syn::Error::new(pair.name.span(), format!("`{name}` is given twice")));
            }
            let call = pair.name.clone();
            match name.as_str() {
                "name" => options.name = Some(text(&value)?),
                "queue" | "codec" => {
                    let value = text(&value)?;
                    options.calls.push(quote!(.#call(#value)));
                }
                "priority" | "max_retries" | "max_crashes" | "set_job_status" => {
                    options.calls.push(quote!(.#call(#value)));
                }
                "retry_delay" | "grab_for" => {
                    let value = duration(&value)?;
                    options.calls.push(quote!(.#call(#value)));
                }
                _ => {
                    let message = format!("unknown option `{name}`; there are {KNOWN}");
                    return Err(syn::Error::new(pair.name.span(), message));
                }
            }
            seen.push(name);
        }
        Ok(options)
    }
}

fn text(value: &Expr) -> syn::Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if !text.value().is_empty() => {
            Ok(text.clone())
        }
        other => Err(syn::Error::new_spanned(other, "expected a text in quotes, not empty")),
    }
}

/// A text such as `"60s"` becomes a `Duration`; any other expression is taken as it is.
fn duration(value: &Expr) -> syn::Result<TokenStream> {
    let Expr::Lit(ExprLit { lit, .. }) = value else {
        return Ok(quote!(#value));
    };
    let Lit::Str(text) = lit else {
        return Err(syn::Error::new_spanned(lit, "give a time its unit, such as \"60s\""));
    };
    let millis = millis(&text.value()).ok_or_else(|| {
        let message = "expected a number and a unit: \"250ms\", \"60s\", \"5m\", \"2h\", \"1d\"";
        syn::Error::new_spanned(text, message)
    })?;
    Ok(quote!(::core::time::Duration::from_millis(#millis)))
}

fn millis(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let factor = match text[digits..].trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::millis;

    #[test]
    fn times_need_a_number_and_a_known_unit() {
        assert_eq!(millis("250ms"), Some(250));
        assert_eq!(millis("2h"), Some(7_200_000));
        assert_eq!(millis("1 d"), Some(86_400_000));
        for bad in
            ["", "5", "s", "-1s", "1.5s", "1w", "99999999999999999999s", "9999999999999999999d"]
        {
            assert_eq!(millis(bad), None, "{bad:?}");
        }
    }
}
