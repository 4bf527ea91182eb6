use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, ExprLit, Ident, Lit, LitStr, Token};

const KNOWN: &str = "name, aliases, queue, codec, priority, unique_by, max_retries, max_crashes, \
                     retry_delay, grab_for, time_limit, job_status, hooks, plugins, version, \
                     upgrade";

/// The options of `#[ability(..)]`.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    pub(crate) unique_by: Option<Expr>,
    pub(crate) version: Option<Expr>,
    pub(crate) upgrade: Option<Expr>,
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
            let name = pair.name.to_string();
            if seen.contains(&name) {
                return Err(syn::Error::new(pair.name.span(), format!("`{name}` is given twice")));
            }
            options.add(pair)?;
            seen.push(name);
        }
        if let (Some(upgrade), None) = (&options.upgrade, &options.version) {
            let message = "`upgrade` needs `version`: the version that it leads to";
            return Err(syn::Error::new_spanned(upgrade, message));
        }
        Ok(options)
    }
}

impl Options {
    fn add(&mut self, Pair { name, value }: Pair) -> syn::Result<()> {
        match name.to_string().as_str() {
            "name" => self.name = Some(text(&value)?),
            "unique_by" => self.unique_by = Some(value),
            "version" => self.version = Some(value),
            "upgrade" => self.upgrade = Some(value),
            "queue" | "codec" => {
                let value = text(&value)?;
                self.calls.push(quote!(.#name(#value)));
            }
            // Qudo's own name of it.
            "set_job_status" => self.calls.push(quote!(.job_status(#value))),
            "priority" | "max_retries" | "max_crashes" | "job_status" => {
                self.calls.push(quote!(.#name(#value)));
            }
            "grab_for" | "time_limit" => {
                let value = duration(&value)?;
                self.calls.push(quote!(.#name(#value)));
            }
            "retry_delay" => {
                let value = exponential(&value).unwrap_or_else(|| duration(&value))?;
                self.calls.push(quote!(.#name(#value)));
            }
            "aliases" => {
                for alias in list(&value, "aliases = [\"former_name\"]")? {
                    let alias = text(alias)?;
                    self.calls.push(quote!(.alias(#alias)));
                }
            }
            "hooks" => {
                for hook in list(&value, "hooks = [MyHook]")? {
                    self.calls.push(quote!(.hook(#hook)));
                }
            }
            "plugins" => {
                for plugin in list(&value, "plugins = [Mailer]")? {
                    self.calls.push(quote!(.needs::<#plugin>()));
                }
            }
            unknown => {
                let message = format!("unknown option `{unknown}`; there are {KNOWN}");
                return Err(syn::Error::new(name.span(), message));
            }
        }
        Ok(())
    }
}

fn list<'v>(value: &'v Expr, example: &str) -> syn::Result<impl Iterator<Item = &'v Expr>> {
    match value {
        Expr::Array(array) => Ok(array.elems.iter()),
        other => Err(syn::Error::new_spanned(other, format!("expected a list: `{example}`"))),
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

/// `exponential("1s", "1h")`: doubles from the first up to the second.
fn exponential(value: &Expr) -> Option<syn::Result<TokenStream>> {
    let Expr::Call(call) = value else { return None };
    let Expr::Path(path) = &*call.func else { return None };
    if !path.path.is_ident("exponential") {
        return None;
    }
    let arguments: Vec<_> = call.args.iter().collect();
    let [base, cap] = arguments[..] else {
        let message = "expected the first delay and the longest: `exponential(\"1s\", \"1h\")`";
        return Some(Err(syn::Error::new_spanned(call, message)));
    };
    Some(duration(base).and_then(|base| {
        let cap = duration(cap)?;
        Ok(quote!(::qudo::Backoff::new(#base, #cap)))
    }))
}

/// A text such as `"60s"` becomes a `Duration`; any other expression is taken as it is.
fn duration(value: &Expr) -> syn::Result<TokenStream> {
    let Expr::Lit(ExprLit { lit, .. }) = value else {
        return Ok(quote!(#value));
    };
    let Lit::Str(text) = lit else {
        return Err(syn::Error::new_spanned(lit, "give a time its unit, such as \"60s\""));
    };
    let duration = humantime::parse_duration(&text.value()).map_err(|error| {
        let message = format!("expected such as \"250ms\", \"60s\", \"1h 30m\", \"1d\": {error}");
        syn::Error::new_spanned(text, message)
    })?;
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    Ok(quote!(::core::time::Duration::new(#seconds, #nanos)))
}
