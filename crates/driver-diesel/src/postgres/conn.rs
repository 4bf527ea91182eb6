//! How values go into a statement for PostgreSQL and come out, arrays included.

use diesel::deserialize;
use diesel::pg::Pg;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::Row;
use diesel::sql_types::{self, BigInt, Binary, Integer, Nullable, Text};
use diesel::{PgConnection, RunQueryDsl};
use uuid::Uuid;

use crate::sql::{
    Array, Bind, Dialect, FromRow, Loaded, Sql, SqlConn, Statement, ansi_transaction, plain_reads,
    sql_conn,
};

impl Dialect for Pg {
    fn bind<'b>(out: &mut AstPass<'_, 'b, Self>, bind: &'b Bind<'b>) -> QueryResult<()> {
        match bind {
            Bind::Int(value) => out.push_bind_param::<Integer, _>(value),
            Bind::Big(value) => out.push_bind_param::<BigInt, _>(value),
            Bind::OptBig(value) => out.push_bind_param::<Nullable<BigInt>, _>(value),
            Bind::Text(value) => out.push_bind_param::<Text, str>(value),
            Bind::OptText(value) => out.push_bind_param::<Nullable<Text>, _>(value),
            Bind::Bytes(value) => out.push_bind_param::<Binary, [u8]>(value),
            Bind::OptBytes(value) => out.push_bind_param::<Nullable<Binary>, _>(value),
            Bind::Id(value) => out.push_bind_param::<sql_types::Uuid, Uuid>(value),
            Bind::Array(array) => bind_array(out, array),
        }
    }
    fn id<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<Uuid> {
        row.get_value::<sql_types::Uuid, Uuid, usize>(at)
    }
    plain_reads!();
}
sql_conn!(PgConnection, ansi_transaction, ansi_transaction);

fn bind_array<'b>(out: &mut AstPass<'_, 'b, Pg>, array: &'b Array<'b>) -> QueryResult<()> {
    match array {
        Array::Ids(all) => out.push_bind_param::<sql_types::Array<sql_types::Uuid>, _>(all),
        Array::Ints(all) => out.push_bind_param::<sql_types::Array<Integer>, _>(all),
        Array::Bigs(all) => out.push_bind_param::<sql_types::Array<BigInt>, _>(all),
        Array::OptBigs(all) => out.push_bind_param::<sql_types::Array<Nullable<BigInt>>, _>(all),
        Array::Texts(all) => out.push_bind_param::<sql_types::Array<Text>, _>(all),
        Array::OptTexts(all) => out.push_bind_param::<sql_types::Array<Nullable<Text>>, _>(all),
        Array::Bytes(all) => out.push_bind_param::<sql_types::Array<Binary>, _>(all),
    }
}
