use proc_macro2::TokenStream;
use quote::quote;
use syn::{FnArg, ItemFn, Pat, ReturnType, Type};

use crate::options::Options;

/// What the function takes.
struct Shape {
    job: bool,
    arg: Option<Type>,
}

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let options: Options = syn::parse2(options)?;
    let function: ItemFn = syn::parse2(item).map_err(|error| {
        syn::Error::new(
            error.span(),
            "#[ability] goes on a function; for other types implement the trait `qudo::Ability`",
        )
    })?;
    let shape = shape(&function)?;
    let (name, visibility) = (&function.sig.ident, &function.vis);
    let stored = options.name.as_ref().map_or_else(
        || {
            let text = name.to_string();
            quote!(#text)
        },
        |name| quote!(#name),
    );
    let calls = &options.calls;
    let arg = shape.arg.clone().map_or_else(|| quote!(()), |arg| quote!(#arg));
    let output = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, output) => quote!(#output),
    };
    let call = match (shape.job, shape.arg.is_some()) {
        (true, true) => quote!(#name(job, arg)),
        (true, false) => quote!(#name(job)),
        (false, true) => quote!(#name(arg)),
        (false, false) => quote!(#name()),
    };
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
            #visibility fn job(#job_params) -> ::qudo::NewJob {
                <Self as ::qudo::Ability>::job(#job_arg)
            }
        }

        impl ::qudo::Ability for #name {
            const NAME: &'static str = #stored;
            type Arg = #arg;
            type Reply = <#output as ::qudo::AbilityReturn>::Reply;

            fn options() -> ::qudo::AbilityOptions {
                ::qudo::AbilityOptions::default() #(#calls)*
            }

            #[allow(unused_variables, clippy::unit_arg)]
            fn work(
                job: &::qudo::Job,
                arg: Self::Arg,
            ) -> ::core::result::Result<Self::Reply, ::qudo::JobError> {
                ::qudo::AbilityReturn::into_result(#call)
            }
        }

        ::qudo::inventory::submit! {
            ::qudo::AbilityRegistration::of::<#name>(
                ::qudo::SourceLocation::new(::core::file!(), ::core::line!()),
            )
        }
    })
}

fn shape(function: &ItemFn) -> syn::Result<Shape> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(syn::Error::new_spanned(
            token,
            "an ability is not async: it runs on a worker thread and may block",
        ));
    }
    if !signature.generics.params.is_empty() {
        let message =
            "an ability cannot be generic: its argument type decides how stored jobs are read";
        return Err(syn::Error::new_spanned(&signature.generics, message));
    }
    let mut shape = Shape { job: false, arg: None };
    for (place, input) in signature.inputs.iter().enumerate() {
        let FnArg::Typed(typed) = input else {
            return Err(syn::Error::new_spanned(
                input,
                "an ability is a free function, without self",
            ));
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

fn is_job_reference(ty: &Type) -> bool {
    let Type::Reference(reference) = ty else {
        return false;
    };
    let Type::Path(path) = &*reference.elem else {
        return false;
    };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Job")
}
