use diesel::MysqlConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{About, Remark};

use super::procedures;
use crate::checkup::setting;
use crate::sql::Sql;

/// What an operator should know of the settings.
pub(super) fn checkup(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<Vec<Remark>> {
    let mut remarks = Vec::new();
    let mut is = |name: &str| setting(conn, &format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)"), &[]);
    let mut weak = |name: &str, is: String, wanted: &str| {
        let text =
            format!("{name} is {is}: what is committed may be lost in a crash; set it to {wanted}");
        remarks.push(Remark::new(About::Durability, text));
    };
    let flush = is("innodb_flush_log_at_trx_commit")?;
    if flush != "1" && flush != "3" {
        weak("innodb_flush_log_at_trx_commit", flush, "1");
    }
    let doublewrite = is("innodb_doublewrite")?.to_uppercase();
    if ["0", "OFF", "DETECT_ONLY"].contains(&&*doublewrite) {
        weak("innodb_doublewrite", doublewrite, "ON");
    }
    let sync = is("sync_binlog")?;
    if is("log_bin")? == "1" && sync != "1" {
        weak("sync_binlog", sync, "1");
    }
    remarks.extend(procedures::checkup(conn)?);
    Ok(remarks)
}
