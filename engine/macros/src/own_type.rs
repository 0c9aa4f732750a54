//! `Self` in a body. A body runs on the handle, and still means the service when it says `Self`.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::visit_mut::{self, VisitMut};
use syn::{ConstParam, GenericParam, Generics, ImplItemFn, ItemImpl, Path, PathArguments, Type, TypeParam, TypePath};

/// The type whose impl block this is.
pub(crate) struct OwnType {
    /// In the form that is a type, an expression and a pattern alike: `Shop::<T>`.
    path: Path,
    generics: Generics,
}

impl OwnType {
    pub(crate) fn of(block: &ItemImpl) -> syn::Result<OwnType> {
        let Type::Path(TypePath { qself: None, path }) = &*block.self_ty else {
            return Err(syn::Error::new_spanned(
                &block.self_ty,
                "`#[compute]` needs a type with a name; write `impl Shop { .. }` for a struct `Shop`",
            ));
        };
        let mut path = path.clone();
        for segment in &mut path.segments {
            if let PathArguments::AngleBracketed(list) = &mut segment.arguments {
                list.colon2_token.get_or_insert_with(Default::default);
            }
        }
        let mut generics = block.generics.clone();
        Naming(&path).visit_generics_mut(&mut generics);
        Ok(OwnType { path, generics })
    }

    pub(crate) fn ident(&self) -> &Ident {
        // A parsed path has at least one segment.
        &self.path.segments[self.path.segments.len() - 1].ident
    }

    pub(crate) fn generics(&self) -> &Generics {
        &self.generics
    }

    /// The block's parameters as arguments: `T`, `N`.
    pub(crate) fn arguments(&self) -> Vec<&Ident> {
        self.generics
            .params
            .iter()
            .filter_map(|parameter| match parameter {
                GenericParam::Type(TypeParam { ident, .. }) | GenericParam::Const(ConstParam { ident, .. }) => Some(ident),
                // Refused before anything is generated.
                GenericParam::Lifetime(_) => None,
            })
            .collect()
    }

    /// Replaces `Self` by the type's name in a signature and its body.
    pub(crate) fn name_in(&self, method: &mut ImplItemFn) {
        Naming(&self.path).visit_impl_item_fn_mut(method);
    }
}

impl ToTokens for OwnType {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.path.to_tokens(tokens);
    }
}

struct Naming<'a>(&'a Path);

impl Naming<'_> {
    fn name_in_tokens(&self, tokens: TokenStream) -> TokenStream {
        tokens
            .into_iter()
            .map(|token| match token {
                TokenTree::Ident(ident) if ident == "Self" => {
                    let path = self.0;
                    quote_spanned!(ident.span()=> #path)
                }
                TokenTree::Group(group) => {
                    let mut named = Group::new(group.delimiter(), self.name_in_tokens(group.stream()));
                    named.set_span(group.span());
                    TokenTree::Group(named).into()
                }
                other => other.into(),
            })
            .collect()
    }
}

impl VisitMut for Naming<'_> {
    fn visit_path_mut(&mut self, path: &mut Path) {
        visit_mut::visit_path_mut(self, path);
        if path.leading_colon.is_none() && path.segments.first().is_some_and(|first| first.ident == "Self") {
            let rest: Vec<_> = path.segments.iter().skip(1).cloned().collect();
            *path = self.0.clone();
            path.segments.extend(rest);
        }
    }

    fn visit_macro_mut(&mut self, invocation: &mut syn::Macro) {
        invocation.tokens = self.name_in_tokens(std::mem::take(&mut invocation.tokens));
    }

    // The receiver is that of the handle.
    fn visit_receiver_mut(&mut self, _: &mut syn::Receiver) {}

    // An item inside the body has its own `Self`.
    fn visit_item_mut(&mut self, _: &mut syn::Item) {}
}
