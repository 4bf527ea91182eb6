//! What is PostgreSQL's own.

use crate::jobs::all;
use crate::place::{Asked, Place};

#[test]
fn arguments_may_be_named_and_their_texts_have_any_collation() {
    let Some(mut place) = Place::on("postgres") else { return };
    place
        .client
        .run(
            "CREATE COLLATION odd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE t (a TEXT COLLATE odd);
             INSERT INTO t VALUES ('Key'), ('key');
             SELECT e.* FROM t, qudo_enqueue(t.a, queue => t.a, uniqkey => t.a) e",
        )
        .expect("stored");
    assert_eq!(all(&place.manager).len(), 2, "compared byte by byte");
    place
        .client
        .run(
            "SELECT qudo_enqueue(ability => 'b', run_after => now() + interval '1 hour', arg => to_jsonb(3));
             SELECT qudo_enqueue('b', jsonb_build_object('a', 1), priority => 3)",
        )
        .expect("stored");
    let infinite = place.client.run("SELECT qudo_enqueue('b', run_after => 'infinity')");
    assert!(infinite.expect_err("too late").contains("a year"));
    place.client.run("SELECT qudo_enqueue('b', run_after => '-infinity')").expect("at once");
    place.assert_sound();
}

#[test]
fn a_job_of_an_installation_with_a_schema_and_a_prefix_lands_there() {
    let Some(place) = Place::on("postgres") else { return };
    let dsn = format!("{}?schema=jobs&table_prefix=mail_", place.fresh.url());
    let manager = qudo::Manager::builder().linked(false).database(dsn).build().expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    let mut client = place.another();
    client.run("SET search_path = ''; SELECT * FROM jobs.mail_enqueue('a', uniqkey => 'k', meta => '{\"a\":1}')").expect("stored");
    assert_eq!((all(&manager).len(), all(&place.manager).len()), (1, 0));
}

#[test]
fn a_trigger_that_keeps_a_row_out_is_noticed() {
    let Some(mut place) = Place::on("postgres") else { return };
    place
        .client
        .run("CREATE FUNCTION keep_out() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        .expect("made");
    for table in ["qudo_ready", "qudo_job"] {
        place
            .client
            .run(&format!(
                "CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION keep_out()"
            ))
            .expect("made");
        let refused = place.client.enqueue(&Asked::of("a")).expect_err("it is not stored");
        assert!(refused.contains("rows do not add up"), "{refused}");
        place.client.run(&format!("DROP TRIGGER t ON {table}")).expect("dropped");
    }
    place.assert_sound();
}
