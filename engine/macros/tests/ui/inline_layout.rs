use wellspring::Inline;

#[derive(Clone, Copy, Inline)]
#[repr(align(8))]
struct Padded(u32);

fn main() {}
