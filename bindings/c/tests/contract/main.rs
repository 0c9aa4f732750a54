//! What the header promises, asked for as a C program would ask.

mod caller;
mod contexts;
mod handles;
mod threads;
mod values;
