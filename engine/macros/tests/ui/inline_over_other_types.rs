use wellspring::Inline;

#[derive(Clone, Inline)]
struct Name(String);

#[derive(Clone, Copy, Inline)]
struct Pair((u8, u32));

mod disguised {
    #[derive(Clone, Copy)]
    pub struct PhantomData(pub u8, pub u32);

    #[derive(Clone, Copy, wellspring::Inline)]
    #[repr(transparent)]
    pub struct Hole<T: 'static + Copy + Send + Sync>(PhantomData, std::marker::PhantomData<T>, ());
}

fn main() {}
