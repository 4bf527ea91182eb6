use heck::ToSnakeCase;
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{
    Expr, ExprClosure, FnArg, ImplItem, ImplItemFn, Item, ItemFn, ItemImpl, Pat, ReturnType,
    Signature, Type, Visibility,
};

use crate::options::Options;

/// What the function takes.
struct Shape {
    job: bool,
    arg: Option<Type>,
}

/// What all abilities have, however they are written.
struct Parts {
    /// The type that is the ability.
    ability: TokenStream,
    /// Its name if no option says otherwise.
    name: String,
    arg: TokenStream,
    output: TokenStream,
    /// Calls the function with `job` and `arg`.
    call: TokenStream,
}

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let options: Options = syn::parse2(options)?;
    match syn::parse2(item.clone()) {
        Ok(Item::Fn(function)) => expand_function(&options, &function),
        Ok(Item::Impl(block)) => expand_block(&options, &block),
        _ => {
            let message = "#[ability] goes on a function, or on `impl MyJob { fn work(self, job: \
                           &Job) .. }`; for anything else implement the trait `qudo::Ability`";
            Err(syn::Error::new_spanned(item, message))
        }
    }
}

fn expand_function(options: &Options, function: &ItemFn) -> syn::Result<TokenStream> {
    let shape = shape(&function.sig)?;
    let (name, visibility) = (&function.sig.ident, &function.vis);
    let arg = shape.arg.clone().map_or_else(|| quote!(()), |arg| quote!(#arg));
    let call = match (shape.job, shape.arg.is_some()) {
        (true, true) => quote!(#name(job, arg)),
        (true, false) => quote!(#name(job)),
        (false, true) => quote!(#name(arg)),
        (false, false) => quote!(#name()),
    };
    let parts = Parts {
        ability: quote!(#name),
        name: name.to_string(),
        arg: arg.clone(),
        output: output(&function.sig),
        call: awaited(&function.sig, call),
    };
    let ability = implement(options, &parts);
    let (job_params, job_arg) =
        if shape.arg.is_some() { (quote!(arg: #arg), quote!(arg)) } else { (quote!(), quote!(())) };
    let doc = format!("The ability of the function [`{name}()`].");
    let job_doc = format!("A job for `{name}`, ready to be enqueued.");
    Ok(quote! {
        // The shape of an ability is given: it owns its argument and may fail.
        #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps)]
        #function

        #[doc = #doc]
        #[allow(non_camel_case_types)]
        #visibility struct #name {}

        impl #name {
            #[doc = #job_doc]
            #visibility fn job(
                #job_params
            ) -> ::qudo::NewJob<<Self as ::qudo::Ability>::Reply> {
                <Self as ::qudo::Ability>::job(#job_arg)
            }
        }

        #ability
    })
}

/// `impl MyJob { fn work(self, job: &Job) -> Result<T> { .. } }`: the type is the argument.
fn expand_block(options: &Options, block: &ItemImpl) -> syn::Result<TokenStream> {
    if let Some((_, path, _)) = &block.trait_ {
        let message = "a trait is implemented here; #[ability] goes on a plain `impl MyJob`";
        return Err(syn::Error::new_spanned(path, message));
    }
    if !block.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(&block.generics, GENERIC));
    }
    let ty = &block.self_ty;
    let Some(ident) = type_name(ty) else {
        return Err(syn::Error::new_spanned(ty, "expected a type with a name of its own"));
    };
    let work = work_of(block)?;
    let job = takes_job(work)?;
    let call = if job { quote!(arg.work(job)) } else { quote!(arg.work()) };
    let parts = Parts {
        ability: quote!(#ty),
        name: ident.to_string().to_snake_case(),
        arg: quote!(#ty),
        output: output(&work.sig),
        call: awaited(&work.sig, call),
    };
    let ability = implement(options, &parts);
    let visibility: &Visibility = &work.vis;
    Ok(quote! {
        #[allow(clippy::needless_pass_by_value, clippy::unnecessary_wraps)]
        #block

        impl #ty {
            /// A job with this argument, ready to be enqueued.
            #visibility fn into_job(
                self,
            ) -> ::qudo::NewJob<<Self as ::qudo::Ability>::Reply> {
                <Self as ::qudo::Ability>::job(self)
            }
        }

        #ability
    })
}

fn implement(options: &Options, parts: &Parts) -> TokenStream {
    let Parts { ability, name, arg, output, call } = parts;
    let stored = options.name.as_ref().map_or_else(|| quote!(#name), |name| quote!(#name));
    let calls = &options.calls;
    let version = options.version.as_ref().map(|version| {
        quote!(
            const VERSION: u32 = #version;
        )
    });
    let upgrade = options.upgrade.as_ref().map(|upgrade| {
        quote! {
            fn upgrade(
                from: u32,
                arg: ::qudo::JsonValue,
            ) -> ::core::result::Result<::qudo::JsonValue, ::qudo::JobError> {
                let upgraded = (#upgrade)(from, arg);
                ::qudo::extend::AbilityReturn::into_result(upgraded)
            }
        }
    });
    let uniqkey = options.unique_by.as_ref().map(|unique_by| {
        let key = unique_key(unique_by);
        quote! {
            fn uniqkey(arg: &Self::Arg) -> ::core::option::Option<::std::string::String> {
                #key
                ::core::option::Option::Some(::std::string::ToString::to_string(&key))
            }
        }
    });
    quote! {
        impl ::qudo::Ability for #ability {
            const NAME: &'static str = #stored;
            #version
            type Arg = #arg;
            type Reply = <#output as ::qudo::extend::AbilityReturn>::Reply;

            fn options() -> ::qudo::AbilityOptions {
                ::qudo::AbilityOptions::default() #(#calls)*
            }

            #uniqkey
            #upgrade

            #[allow(unused_variables, clippy::unit_arg)]
            fn work(
                job: &::qudo::Job,
                arg: Self::Arg,
            ) -> ::core::result::Result<Self::Reply, ::qudo::JobError> {
                ::qudo::extend::AbilityReturn::into_result(#call)
            }
        }

        ::qudo::register!(#ability);
    }
}

const GENERIC: &str =
    "an ability cannot be generic: its argument type decides how stored jobs are read";

fn output(signature: &Signature) -> TokenStream {
    match &signature.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, output) => quote!(#output),
    }
}

/// Says what `key` is, by reference. The body of a closure stands here itself, so that it may borrow from the argument, which a
/// closure without types may not; one that returns early is called.
fn unique_key(by: &Expr) -> TokenStream {
    if let Expr::Closure(ExprClosure { inputs, output: ReturnType::Default, body, .. }) = by
        && let (Some(input), 1) = (inputs.first(), inputs.len())
        && !returns_early(body.to_token_stream())
    {
        return quote!(let #input = arg; let key = &(#body););
    }
    quote!(let by: fn(&Self::Arg) -> _ = #by; let key = &by(arg);)
}

fn returns_early(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "return",
        // An early return too.
        TokenTree::Punct(punct) => punct.as_char() == '?',
        TokenTree::Group(group) => returns_early(group.stream()),
        TokenTree::Literal(_) => false,
    })
}

/// An `async` function runs on the runtime that the manager was given.
fn awaited(signature: &Signature, call: TokenStream) -> TokenStream {
    match &signature.asyncness {
        None => call,
        Some(token) => {
            // The error, should the feature be off, points at the word.
            let run = format_ident!("block_on", span = token.span);
            quote!(::qudo::extend::#run!(job, #call)?)
        }
    }
}

fn shape(signature: &Signature) -> syn::Result<Shape> {
    if !signature.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(&signature.generics, GENERIC));
    }
    let mut shape = Shape { job: false, arg: None };
    for (place, input) in signature.inputs.iter().enumerate() {
        let FnArg::Typed(typed) = input else {
            let message = "an ability is a free function without self; for a method put \
                           #[ability] on its impl block";
            return Err(syn::Error::new_spanned(input, message));
        };
        match &*typed.ty {
            Type::Reference(_) if place == 0 && is_job_reference(&typed.ty) => shape.job = true,
            Type::Reference(reference) => {
                let message = "the argument is decoded from stored bytes, so it must be owned: \
                               String instead of &str, Vec<T> instead of &[T]";
                return Err(syn::Error::new_spanned(reference, message));
            }
            owned if shape.arg.is_none() => shape.arg = Some(owned.clone()),
            extra => {
                let message = "an ability takes one argument; put several into a struct or a tuple";
                return Err(syn::Error::new_spanned(extra, message));
            }
        }
        if let Pat::Rest(rest) = &*typed.pat {
            return Err(syn::Error::new_spanned(rest, "expected a name"));
        }
    }
    Ok(shape)
}

fn work_of(block: &ItemImpl) -> syn::Result<&ImplItemFn> {
    let work = block.items.iter().find_map(|item| match item {
        ImplItem::Fn(function) if function.sig.ident == "work" => Some(function),
        _ => None,
    });
    work.ok_or_else(|| {
        let message = "the block needs a method `fn work(self, job: &Job)`, with or without the \
                       job; the type is the argument";
        syn::Error::new_spanned(&block.self_ty, message)
    })
}

/// Whether the method takes the job beside `self`.
fn takes_job(work: &ImplItemFn) -> syn::Result<bool> {
    let inputs: Vec<_> = work.sig.inputs.iter().collect();
    match &inputs[..] {
        [FnArg::Receiver(receiver), rest @ ..] if receiver.reference.is_none() => match rest {
            [] => Ok(false),
            [FnArg::Typed(typed)] if is_job_reference(&typed.ty) => Ok(true),
            [other, ..] => Err(syn::Error::new_spanned(
                other,
                "`work` takes the job and nothing else: the type itself is the argument",
            )),
        },
        _ => Err(syn::Error::new_spanned(
            &work.sig,
            "`work` takes `self`, not a reference: the argument was decoded for this run",
        )),
    }
}

fn type_name(ty: &Type) -> Option<&Ident> {
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().map(|segment| &segment.ident)
}

fn is_job_reference(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else {
        return false;
    };
    type_name(&reference.elem).is_some_and(|name| name == "Job")
}
