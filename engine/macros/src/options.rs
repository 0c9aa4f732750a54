//! What can be written inside `#[compute(..)]`, on the impl block and on one method.

use proc_macro2::{Ident, Span};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, LitStr, Token, Visibility};

/// The rule that says when a recomputed value counts as unchanged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutOff {
    Eq,
    Hash,
    Never,
}

/// What is done about errors.
pub(crate) enum Errors {
    /// Kept like any other value.
    Keep,
    /// Tried again by the kind that the expression, a function of the error, gives.
    Kind(syn::Expr),
}

/// Options that are methods of `Define` with one argument.
const CALLS: [&str; 8] = ["expire_after", "refresh_ahead", "keep_at_least", "debounce", "capacity", "weigh", "error_delays", "consolidate"];

/// `#[compute(handle = Name, name = "..")]` on the impl block.
#[derive(Default)]
pub(crate) struct BlockOptions {
    pub(crate) handle: Option<(Visibility, Ident)>,
    pub(crate) name: Option<LitStr>,
}

/// `#[compute(cut_off = .., name = "..", result)]` on a method.
#[derive(Default)]
pub(crate) struct MethodOptions {
    pub(crate) cut_off: Option<CutOff>,
    pub(crate) name: Option<LitStr>,
    pub(crate) result: bool,
    pub(crate) errors: Option<Errors>,
    /// Methods of `Define` that are called with the expression given.
    pub(crate) calls: Vec<(Ident, Option<syn::Expr>)>,
    /// Where the attribute stands, if there is one.
    pub(crate) span: Option<Span>,
}

impl Parse for BlockOptions {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = BlockOptions::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "handle" => {
                    once(&key, options.handle.is_none(), "the impl block")?;
                    input.parse::<Token![=]>()?;
                    options.handle = Some((input.parse()?, input.parse()?));
                }
                "name" => {
                    once(&key, options.name.is_none(), "the impl block")?;
                    input.parse::<Token![=]>()?;
                    options.name = Some(service_name(input, "the impl block")?);
                }
                _ => {
                    return Err(syn::Error::new(
                        key.span(),
                        format!(
                            "unknown option `{key}` on the impl block; write `handle = ShopHandle` or `name = \"Shop\"` \
                             (`cut_off`, `name` and `result` of one function go on its method)"
                        ),
                    ));
                }
            }
            comma(input)?;
        }
        Ok(options)
    }
}

impl MethodOptions {
    /// Reads the options from the method's attributes; `method` is for the messages.
    pub(crate) fn from_attributes(attributes: &[Attribute], method: &Ident) -> syn::Result<Self> {
        let mut options = MethodOptions::default();
        for attribute in attributes {
            options.span = Some(attribute.pound_token.spans[0]);
            if matches!(attribute.meta, syn::Meta::Path(_)) {
                continue;
            }
            attribute.parse_args_with(|input: ParseStream<'_>| options.read(input, method))?;
        }
        Ok(options)
    }

    fn read(&mut self, input: ParseStream<'_>, method: &Ident) -> syn::Result<()> {
        let place = format!("`{method}`");
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "cut_off" => {
                    once(&key, self.cut_off.is_none(), &place)?;
                    input.parse::<Token![=]>()?;
                    let rule: Ident = input.parse()?;
                    self.cut_off = Some(match rule.to_string().as_str() {
                        "eq" => CutOff::Eq,
                        "hash" => CutOff::Hash,
                        "never" => CutOff::Never,
                        _ => {
                            return Err(syn::Error::new(
                                rule.span(),
                                format!(
                                    "unknown cut-off rule `{rule}` on `{method}`; write `cut_off = eq` (an equal value \
                                     changes nothing downstream), `cut_off = hash` (one of equal hash) or `cut_off = never`"
                                ),
                            ));
                        }
                    });
                }
                "name" => {
                    once(&key, self.name.is_none(), &place)?;
                    input.parse::<Token![=]>()?;
                    self.name = Some(service_name(input, &place)?);
                }
                "result" => {
                    once(&key, !self.result, &place)?;
                    self.result = true;
                }
                "errors" => {
                    once(&key, self.errors.is_none(), &place)?;
                    input.parse::<Token![=]>()?;
                    let kind: syn::Expr = input.parse()?;
                    let keep = matches!(&kind, syn::Expr::Path(path) if path.path.is_ident("keep"));
                    self.errors = Some(if keep { Errors::Keep } else { Errors::Kind(kind) });
                }
                "serve_stale_on_error" => {
                    once(&key, !self.calls.iter().any(|(name, _)| *name == key), &place)?;
                    self.calls.push((key, None));
                }
                name if CALLS.contains(&name) => {
                    once(&key, !self.calls.iter().any(|(name, _)| *name == key), &place)?;
                    input.parse::<Token![=]>()?;
                    self.calls.push((key, Some(input.parse()?)));
                }
                _ => {
                    return Err(syn::Error::new(
                        key.span(),
                        format!(
                            "unknown option `{key}` on `{method}`; write `cut_off = eq`, `cut_off = hash`, `cut_off = never`, `name = \"..\"`, \
                             `result`, `errors = ..`, `serve_stale_on_error`, or one of `{}` with its value",
                            CALLS.join("`, `")
                        ),
                    ));
                }
            }
            comma(input)?;
        }
        Ok(())
    }
}

/// Whether this is our own attribute, `#[compute]` or `#[wellspring::compute]`.
pub(crate) fn is_compute(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "compute")
}

fn service_name(input: ParseStream<'_>, place: &str) -> syn::Result<LitStr> {
    let name: LitStr = input.parse()?;
    if name.value().is_empty() {
        return Err(syn::Error::new(
            name.span(),
            format!("`name` on {place} is empty; leave it out to use the name as written in the code"),
        ));
    }
    Ok(name)
}

pub(crate) fn once(key: &Ident, first: bool, place: &str) -> syn::Result<()> {
    if first {
        return Ok(());
    }
    Err(syn::Error::new(key.span(), format!("`{key}` is given twice on {place}; write it once")))
}

pub(crate) fn comma(input: ParseStream<'_>) -> syn::Result<()> {
    if !input.is_empty() {
        input.parse::<Token![,]>()?;
    }
    Ok(())
}
