//! `#[compute]`: takes an impl block apart, keeps the plain methods where they are, and hands the rest to the handle.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, format_ident};
use syn::{GenericParam, ImplItem, Item, ItemImpl, LitStr, Visibility, parse_quote};

use crate::handle;
use crate::method::Method;
use crate::options::BlockOptions;
use crate::own_type::OwnType;
use crate::types;

/// One impl block, read and checked.
pub(crate) struct Block {
    pub(crate) own: OwnType,
    pub(crate) names: Names,
    pub(crate) vis: Visibility,
    pub(crate) service_name: LitStr,
    pub(crate) methods: Vec<Method>,
    /// The block with its plain methods only.
    pub(crate) plain: ItemImpl,
}

/// What the generated items are called.
pub(crate) struct Names {
    pub(crate) handle: Ident,
    pub(crate) functions: Ident,
    pub(crate) invalidate: Ident,
}

pub(crate) fn expand(options: BlockOptions, item: Item) -> syn::Result<TokenStream> {
    let block = impl_block(item)?;
    let block = Block::read(options, block)?;
    Ok(handle::generate(&block))
}

impl Block {
    fn read(options: BlockOptions, mut block: ItemImpl) -> syn::Result<Block> {
        let own = OwnType::of(&block)?;
        check_block(&block, &own)?;
        let names = Names::new(options.handle.as_ref().map(|(_, name)| name), &own);
        let mut errors: Option<syn::Error> = None;
        let mut methods = Vec::new();
        let mut plain = Vec::new();
        for item in std::mem::take(&mut block.items) {
            match item {
                ImplItem::Fn(method) if Method::is_meant(&method) => match Method::read(&method, &own) {
                    Ok(method) if is_taken(&method.ident) => keep(&mut errors, taken(&method.ident, &names)),
                    Ok(method) => methods.push(method),
                    Err(error) => keep(&mut errors, error),
                },
                other => plain.push(other),
            }
        }
        if let Some(error) = errors {
            return Err(error);
        }
        if methods.is_empty() {
            return Err(syn::Error::new_spanned(
                &block.self_ty,
                format!(
                    "no method of `{}` takes a context; write `fn price(&self, cx: &Cx, product: u32)` for a compute \
                     function, or remove `#[compute]`",
                    own.ident()
                ),
            ));
        }
        block.items = plain;
        let vis = options.handle.map_or_else(|| parse_quote!(pub), |(vis, _)| vis);
        let service_name = options.name.unwrap_or_else(|| LitStr::new(&own.ident().to_string(), own.ident().span()));
        Ok(Block { own, names, vis, service_name, methods, plain: block })
    }
}

impl Names {
    fn new(handle: Option<&Ident>, own: &OwnType) -> Names {
        let handle = handle.cloned().unwrap_or_else(|| format_ident!("{}Handle", own.ident()));
        let text = handle.to_string();
        let stem = text.strip_suffix("Handle").filter(|stem| !stem.is_empty()).unwrap_or(&text);
        let functions = format_ident!("{stem}Functions", span = handle.span());
        let invalidate = format_ident!("{stem}Invalidate", span = handle.span());
        Names { handle, functions, invalidate }
    }
}

/// The impl block of an item, or what to put `#[compute]` on instead.
fn impl_block(item: Item) -> syn::Result<ItemImpl> {
    let (kind, ident) = match &item {
        Item::Impl(_) => {
            let Item::Impl(block) = item else { unreachable!("matched just above") };
            return Ok(block);
        }
        Item::Struct(item) => ("a struct", Some(&item.ident)),
        Item::Enum(item) => ("an enum", Some(&item.ident)),
        Item::Trait(item) => ("a trait", Some(&item.ident)),
        Item::Mod(item) => ("a module", Some(&item.ident)),
        Item::Fn(item) => {
            let name = &item.sig.ident;
            return Err(syn::Error::new(
                name.span(),
                format!(
                    "`{name}` is a free function; make it a method of a service: \
                     `#[compute] impl Shop {{ fn {name}(&self, cx: &Cx, ..) }}`"
                ),
            ));
        }
        _ => ("not an impl block", None),
    };
    let what = ident.map_or_else(|| "this".to_owned(), |ident| format!("`{ident}`"));
    let block = match (&item, ident) {
        (Item::Struct(_) | Item::Enum(_), Some(ident)) => {
            format!("its `impl {ident} {{ .. }}` block")
        }
        _ => "an `impl Shop { .. }` block".to_owned(),
    };
    let message = format!("{what} is {kind}; `#[compute]` goes on {block}");
    Err(match ident {
        Some(ident) => syn::Error::new(ident.span(), message),
        None => syn::Error::new_spanned(&item, message),
    })
}

fn check_block(block: &ItemImpl, own: &OwnType) -> syn::Result<()> {
    let name = types::text(&block.self_ty);
    if let Some((_, path, _)) = &block.trait_ {
        let of = path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        return Err(syn::Error::new_spanned(
            path,
            format!(
                "this implements `{of}` for `{name}`, and `#[compute]` goes on an inherent block; write \
                 `#[compute] impl {name} {{ .. }}`, and implement `{of}` for `{}Handle` by calling it",
                own.ident()
            ),
        ));
    }
    if let Some(parameter) = block.generics.params.iter().find(|parameter| matches!(parameter, GenericParam::Lifetime(_))) {
        return Err(syn::Error::new_spanned(
            parameter,
            format!(
                "`{}` borrows for `{}`, and a service lives as long as its engine; let it own what it holds (an `Arc`, for \
                 one), or write `'static`",
                own.ident(),
                parameter.to_token_stream()
            ),
        ));
    }
    if let Some(attribute) = block.attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
        return Err(syn::Error::new_spanned(
            attribute,
            format!("this `cfg` of `{name}` comes after `#[compute]`; write it above, so that it also covers the handle"),
        ));
    }
    Ok(())
}

/// The handle's own methods, which a function of the same name would collide with.
fn is_taken(ident: &Ident) -> bool {
    ident == "functions" || ident == "invalidate"
}

fn taken(ident: &Ident, names: &Names) -> syn::Error {
    syn::Error::new(ident.span(), format!("`{ident}` is a method that `{}` has of its own; give the function another name", names.handle))
}

/// Several mistakes are said at once.
pub(crate) fn keep(errors: &mut Option<syn::Error>, error: syn::Error) {
    match errors {
        Some(errors) => errors.combine(error),
        None => *errors = Some(error),
    }
}
