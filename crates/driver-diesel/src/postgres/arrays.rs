use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::sql_types::{self, BigInt, Binary, Integer, Nullable, Text};
use uuid::Uuid;

/// An array to bind: one value instead of a `?` for each of its elements.
#[derive(Debug)]
pub(crate) enum Array<'a> {
    Ids(Vec<Uuid>),
    Ints(Vec<i32>),
    Bigs(Vec<i64>),
    OptBigs(Vec<Option<i64>>),
    Texts(Vec<&'a str>),
    OptTexts(Vec<Option<&'a str>>),
    Bytes(Vec<&'a [u8]>),
}

impl Array<'_> {
    pub(crate) fn bind<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self {
            Self::Ids(all) => out.push_bind_param::<sql_types::Array<sql_types::Uuid>, _>(all),
            Self::Ints(all) => out.push_bind_param::<sql_types::Array<Integer>, _>(all),
            Self::Bigs(all) => out.push_bind_param::<sql_types::Array<BigInt>, _>(all),
            Self::OptBigs(all) => out.push_bind_param::<sql_types::Array<Nullable<BigInt>>, _>(all),
            Self::Texts(all) => out.push_bind_param::<sql_types::Array<Text>, _>(all),
            Self::OptTexts(all) => out.push_bind_param::<sql_types::Array<Nullable<Text>>, _>(all),
            Self::Bytes(all) => out.push_bind_param::<sql_types::Array<Binary>, _>(all),
        }
    }
}
