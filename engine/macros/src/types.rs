//! Questions about a type as it is written.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{GenericParam, Generics, PathArguments, Type};

/// Whether a type can be examined where it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependence {
    Concrete,
    OnParameter,
}

/// Whether `ty` mentions a type or const parameter of `generics`.
pub(crate) fn dependence(ty: &Type, generics: &Generics) -> Dependence {
    struct Mentions<'a>(&'a Generics, bool);
    impl<'ast> Visit<'ast> for Mentions<'_> {
        fn visit_path(&mut self, path: &'ast syn::Path) {
            if let Some(first) = path.segments.first() {
                self.1 |= self.0.params.iter().any(|parameter| match parameter {
                    GenericParam::Type(ty) => first.ident == ty.ident,
                    GenericParam::Const(constant) => first.ident == constant.ident,
                    GenericParam::Lifetime(_) => false,
                });
            }
            visit::visit_path(self, path);
        }
        fn visit_macro(&mut self, _: &'ast syn::Macro) {
            // What a macro in type position expands to is not known: in a generic block it may be a parameter.
            self.1 |= !self.0.params.is_empty();
        }
    }
    let mut mentions = Mentions(generics, false);
    mentions.visit_type(ty);
    if mentions.1 { Dependence::OnParameter } else { Dependence::Concrete }
}

/// The part of `ty` that borrows for less than `'static`, if it does.
pub(crate) fn first_borrow(ty: &Type) -> Option<TokenStream> {
    struct Borrows(Option<TokenStream>);
    impl<'ast> Visit<'ast> for Borrows {
        fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
            if reference.lifetime.is_none() {
                self.0.get_or_insert_with(|| reference.to_token_stream());
            }
            visit::visit_type_reference(self, reference);
        }
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            if lifetime.ident != "static" {
                self.0.get_or_insert_with(|| lifetime.to_token_stream());
            }
        }
        // `fn(&str)` and `dyn Fn(&str)` name a borrow without holding one.
        fn visit_type_bare_fn(&mut self, _: &'ast syn::TypeBareFn) {}
        fn visit_parenthesized_generic_arguments(&mut self, _: &'ast syn::ParenthesizedGenericArguments) {}
        fn visit_trait_bound(&mut self, bound: &'ast syn::TraitBound) {
            if bound.lifetimes.is_none() {
                visit::visit_trait_bound(self, bound);
            }
        }
    }
    let mut borrows = Borrows(None);
    borrows.visit_type(ty);
    borrows.0
}

/// The part of `ty` that says `impl Trait`, if it does.
pub(crate) fn first_opaque(ty: &Type) -> Option<TokenStream> {
    struct Opaque(Option<TokenStream>);
    impl<'ast> Visit<'ast> for Opaque {
        fn visit_type_impl_trait(&mut self, opaque: &'ast syn::TypeImplTrait) {
            self.0.get_or_insert_with(|| opaque.to_token_stream());
        }
    }
    let mut opaque = Opaque(None);
    opaque.visit_type(ty);
    opaque.0
}

/// The `Self` in `ty`, if it is named.
pub(crate) fn first_self(ty: &Type) -> Option<TokenStream> {
    struct Named(Option<TokenStream>);
    impl<'ast> Visit<'ast> for Named {
        fn visit_path(&mut self, path: &'ast syn::Path) {
            if let Some(first) = path.segments.first().filter(|first| first.ident == "Self") {
                self.0.get_or_insert_with(|| first.to_token_stream());
            }
            visit::visit_path(self, path);
        }
    }
    let mut named = Named(None);
    named.visit_type(ty);
    named.0
}

/// Whether `ty` is written as a `Result<V, E>`, or as an alias of that name with the error left out.
pub(crate) fn is_written_result(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| match &last.arguments {
        PathArguments::AngleBracketed(list) => last.ident == "Result" && matches!(list.args.len(), 1 | 2),
        _ => false,
    })
}

/// Whether `ty` is written as one of the language's own scalar types, or `String`: nothing an alias would be called.
pub(crate) fn is_primitive(ty: &Type) -> bool {
    const NAMES: [&str; 18] = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64", "bool", "char", "str",
        "String",
    ];
    matches!(ty, Type::Path(path) if NAMES.iter().any(|name| path.path.is_ident(name)))
}

/// Whether `ty` is one that only exists behind a reference.
pub(crate) fn is_unsized(ty: &Type) -> bool {
    matches!(ty, Type::Slice(_)) || matches!(ty, Type::Path(path) if path.path.is_ident("str"))
}

/// What to write instead of a reference to `ty`.
pub(crate) fn owned_text(ty: &Type) -> String {
    match ty {
        Type::Path(path) if path.path.is_ident("str") => "String".to_owned(),
        Type::Slice(slice) => format!("Vec<{}>", text(&slice.elem)),
        _ => text(ty),
    }
}

/// The type as a person would write it.
pub(crate) fn text(ty: &Type) -> String {
    let spaced = ty.to_token_stream().to_string();
    [(" <", "<"), ("< ", "<"), (" >", ">"), (" ::", "::"), (":: ", "::"), ("& ", "&"), (" ,", ","), ("[ ", "["), (" ]", "]")]
        .into_iter()
        .fold(spaced, |text, (from, to)| text.replace(from, to))
}
