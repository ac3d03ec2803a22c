//! The system catalogs: names, OIDs, columns and indexes, as PostgreSQL 15 has them.
//!
//! `heap` catalogs exist once per database, `shared` ones once per cluster, both as ordinary files whose number is the
//! catalog's OID; `virtual` ones have rows compiled in, `mixed` ones both. `schema::pg_class::relname` is a column's position in a row.
//!
//! PostgreSQL: src/include/catalog/pg_*.h.

use crate::sql::types::Oid;

use crate::sql::types::oids;

/// How a catalog's rows are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A file per database.
    Heap,
    /// A file per cluster, in `global/`.
    Shared,
    /// Made on the fly.
    Virtual,
    /// Rows compiled in, and rows of users in a file per database.
    Mixed,
}

/// One system catalog.
#[derive(Debug)]
pub struct CatalogDef {
    /// Its OID, also the number of its file.
    pub oid: Oid,
    /// Its name.
    pub name: &'static str,
    /// How rows are kept.
    pub keep: Keep,
    /// Columns in order.
    pub columns: &'static [ColumnDef],
    /// Indexes; unused for virtual catalogs.
    pub indexes: &'static [IndexDef],
}

/// One column of a catalog.
#[derive(Debug)]
pub struct ColumnDef {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub type_oid: Oid,
    /// NOT NULL.
    pub not_null: bool,
}

/// One index of a catalog.
#[derive(Debug)]
pub struct IndexDef {
    /// Its OID, also the number of its file.
    pub oid: Oid,
    /// Its name.
    pub name: &'static str,
    /// UNIQUE.
    pub unique: bool,
    /// Shown as primary key.
    pub primary: bool,
    /// Positions of its columns.
    pub columns: &'static [usize],
}

macro_rules! keep {
    (heap) => {
        Keep::Heap
    };
    (shared) => {
        Keep::Shared
    };
    (virtual) => {
        Keep::Virtual
    };
    (mixed) => {
        Keep::Mixed
    };
}
macro_rules! required {
    (req) => {
        true
    };
    (opt) => {
        false
    };
}
macro_rules! unique {
    (plain) => {
        false
    };
    ($other:ident) => {
        true
    };
}
macro_rules! primary {
    (pkey) => {
        true
    };
    ($other:ident) => {
        false
    };
}

macro_rules! catalogs {
    ($($keep:tt $name:ident $oid:literal {
        $($col:ident: $ty:ident $req:ident,)*
    } [
        $($ikind:ident $iname:ident $ioid:literal ($($icol:ident)*),)*
    ])*) => {
        $(
            #[doc = concat!("Columns of `", stringify!($name), "`, and `ID`, its OID.")]
            #[expect(non_upper_case_globals, reason = "named as the column they stand for")]
            pub mod $name {
                use super::{CatalogDef, ColumnDef, IndexDef, Keep, Oid, oids};

                #[expect(non_camel_case_types, reason = "numbers the columns")]
                enum Position { $($col),* }
                $(
                    #[doc = concat!("Position of `", stringify!($col), "`.")]
                    pub const $col: usize = Position::$col as usize;
                )*
                /// OID of the catalog.
                pub const ID: Oid = $oid;
                /// The catalog.
                pub static DEF: CatalogDef = CatalogDef {
                    oid: $oid,
                    name: stringify!($name),
                    keep: keep!($keep),
                    columns: &[$(ColumnDef {
                        name: stringify!($col), type_oid: oids::$ty, not_null: required!($req),
                    }),*],
                    indexes: &[$(IndexDef {
                        oid: $ioid, name: stringify!($iname), unique: unique!($ikind), primary: primary!($ikind),
                        columns: &[$($icol),*],
                    }),*],
                };
            }
        )*

        /// Every system catalog.
        pub static CATALOGS: &[&CatalogDef] = &[$(&$name::DEF),*];
    };
}

catalogs! {
    virtual pg_aggregate 2600 {
        aggfnoid: REGPROC req, aggkind: CHAR req, aggnumdirectargs: INT2 req, aggtransfn: REGPROC req,
        aggfinalfn: REGPROC req, aggcombinefn: REGPROC req, aggserialfn: REGPROC req, aggdeserialfn: REGPROC req,
        aggmtransfn: REGPROC req, aggminvtransfn: REGPROC req, aggmfinalfn: REGPROC req, aggfinalextra: BOOL req,
        aggmfinalextra: BOOL req, aggfinalmodify: CHAR req, aggmfinalmodify: CHAR req, aggsortop: OID req,
        aggtranstype: OID req, aggtransspace: INT4 req, aggmtranstype: OID req, aggmtransspace: INT4 req,
        agginitval: TEXT opt, aggminitval: TEXT opt,
    } [
        pkey pg_aggregate_fnoid_index 2650 (aggfnoid),
    ]
    virtual pg_am 2601 {
        oid: OID req, amname: NAME req, amhandler: REGPROC req, amtype: CHAR req,
    } [
        unique pg_am_name_index 2651 (amname),
        pkey pg_am_oid_index 2652 (oid),
    ]
    virtual pg_amop 2602 {
        oid: OID req, amopfamily: OID req, amoplefttype: OID req, amoprighttype: OID req, amopstrategy: INT2 req,
        amoppurpose: CHAR req, amopopr: OID req, amopmethod: OID req, amopsortfamily: OID req,
    } [
        unique pg_amop_fam_strat_index 2653 (amopfamily amoplefttype amoprighttype amopstrategy),
        unique pg_amop_opr_fam_index 2654 (amopopr amoppurpose amopfamily),
        pkey pg_amop_oid_index 2756 (oid),
    ]
    virtual pg_amproc 2603 {
        oid: OID req, amprocfamily: OID req, amproclefttype: OID req, amprocrighttype: OID req, amprocnum: INT2 req,
        amproc: REGPROC req,
    } [
        unique pg_amproc_fam_proc_index 2655 (amprocfamily amproclefttype amprocrighttype amprocnum),
        pkey pg_amproc_oid_index 2757 (oid),
    ]
    heap pg_attrdef 2604 {
        oid: OID req, adrelid: OID req, adnum: INT2 req, adbin: PG_NODE_TREE req,
    } [
        unique pg_attrdef_adrelid_adnum_index 2656 (adrelid adnum),
        pkey pg_attrdef_oid_index 2657 (oid),
    ]
    heap pg_attribute 1249 {
        attrelid: OID req, attname: NAME req, atttypid: OID req, attstattarget: INT4 req, attlen: INT2 req,
        attnum: INT2 req, attndims: INT4 req, attcacheoff: INT4 req, atttypmod: INT4 req, attbyval: BOOL req,
        attalign: CHAR req, attstorage: CHAR req, attcompression: CHAR req, attnotnull: BOOL req, atthasdef: BOOL req,
        atthasmissing: BOOL req, attidentity: CHAR req, attgenerated: CHAR req, attisdropped: BOOL req,
        attislocal: BOOL req, attinhcount: INT4 req, attcollation: OID req, attacl: ACLITEM_ARRAY opt,
        attoptions: TEXT_ARRAY opt, attfdwoptions: TEXT_ARRAY opt, attmissingval: ANYARRAY opt,
    } [
        unique pg_attribute_relid_attnam_index 2658 (attrelid attname),
        pkey pg_attribute_relid_attnum_index 2659 (attrelid attnum),
    ]
    shared pg_auth_members 1261 {
        roleid: OID req, member: OID req, grantor: OID req, admin_option: BOOL req,
    } [
        pkey pg_auth_members_role_member_index 2694 (roleid member),
        unique pg_auth_members_member_role_index 2695 (member roleid),
    ]
    shared pg_authid 1260 {
        oid: OID req, rolname: NAME req, rolsuper: BOOL req, rolinherit: BOOL req, rolcreaterole: BOOL req,
        rolcreatedb: BOOL req, rolcanlogin: BOOL req, rolreplication: BOOL req, rolbypassrls: BOOL req,
        rolconnlimit: INT4 req, rolpassword: TEXT opt, rolvaliduntil: TIMESTAMPTZ opt,
    } [
        unique pg_authid_rolname_index 2676 (rolname),
        pkey pg_authid_oid_index 2677 (oid),
    ]
    virtual pg_cast 2605 {
        oid: OID req, castsource: OID req, casttarget: OID req, castfunc: OID req, castcontext: CHAR req,
        castmethod: CHAR req,
    } [
        pkey pg_cast_oid_index 2660 (oid),
        unique pg_cast_source_target_index 2661 (castsource casttarget),
    ]
    heap pg_class 1259 {
        oid: OID req, relname: NAME req, relnamespace: OID req, reltype: OID req, reloftype: OID req,
        relowner: OID req, relam: OID req, relfilenode: OID req, reltablespace: OID req, relpages: INT4 req,
        reltuples: FLOAT4 req, relallvisible: INT4 req, reltoastrelid: OID req, relhasindex: BOOL req,
        relisshared: BOOL req, relpersistence: CHAR req, relkind: CHAR req, relnatts: INT2 req, relchecks: INT2 req,
        relhasrules: BOOL req, relhastriggers: BOOL req, relhassubclass: BOOL req, relrowsecurity: BOOL req,
        relforcerowsecurity: BOOL req, relispopulated: BOOL req, relreplident: CHAR req, relispartition: BOOL req,
        relrewrite: OID req, relfrozenxid: XID req, relminmxid: XID req, relacl: ACLITEM_ARRAY opt,
        reloptions: TEXT_ARRAY opt, relpartbound: PG_NODE_TREE opt,
    } [
        pkey pg_class_oid_index 2662 (oid),
        unique pg_class_relname_nsp_index 2663 (relname relnamespace),
        plain pg_class_tblspc_relfilenode_index 3455 (reltablespace relfilenode),
    ]
    virtual pg_collation 3456 {
        oid: OID req, collname: NAME req, collnamespace: OID req, collowner: OID req, collprovider: CHAR req,
        collisdeterministic: BOOL req, collencoding: INT4 req, collcollate: TEXT opt, collctype: TEXT opt,
        colliculocale: TEXT opt, collversion: TEXT opt,
    } [
        unique pg_collation_name_enc_nsp_index 3164 (collname collencoding collnamespace),
        pkey pg_collation_oid_index 3085 (oid),
    ]
    heap pg_constraint 2606 {
        oid: OID req, conname: NAME req, connamespace: OID req, contype: CHAR req, condeferrable: BOOL req,
        condeferred: BOOL req, convalidated: BOOL req, conrelid: OID req, contypid: OID req, conindid: OID req,
        conparentid: OID req, confrelid: OID req, confupdtype: CHAR req, confdeltype: CHAR req,
        confmatchtype: CHAR req, conislocal: BOOL req, coninhcount: INT4 req, connoinherit: BOOL req,
        conkey: INT2_ARRAY opt, confkey: INT2_ARRAY opt, conpfeqop: OID_ARRAY opt, conppeqop: OID_ARRAY opt,
        conffeqop: OID_ARRAY opt, confdelsetcols: INT2_ARRAY opt, conexclop: OID_ARRAY opt, conbin: PG_NODE_TREE opt,
    } [
        plain pg_constraint_conname_nsp_index 2664 (conname connamespace),
        unique pg_constraint_conrelid_contypid_conname_index 2665 (conrelid contypid conname),
        plain pg_constraint_contypid_index 2666 (contypid),
        pkey pg_constraint_oid_index 2667 (oid),
        plain pg_constraint_conparentid_index 2579 (conparentid),
    ]
    virtual pg_conversion 2607 {
        oid: OID req, conname: NAME req, connamespace: OID req, conowner: OID req, conforencoding: INT4 req,
        contoencoding: INT4 req, conproc: REGPROC req, condefault: BOOL req,
    } [
        unique pg_conversion_default_index 2668 (connamespace conforencoding contoencoding oid),
        unique pg_conversion_name_nsp_index 2669 (conname connamespace),
        pkey pg_conversion_oid_index 2670 (oid),
    ]
    shared pg_database 1262 {
        oid: OID req, datname: NAME req, datdba: OID req, encoding: INT4 req, datlocprovider: CHAR req,
        datistemplate: BOOL req, datallowconn: BOOL req, datconnlimit: INT4 req, datfrozenxid: XID req,
        datminmxid: XID req, dattablespace: OID req, datcollate: TEXT req, datctype: TEXT req, daticulocale: TEXT opt,
        datcollversion: TEXT opt, datacl: ACLITEM_ARRAY opt,
    } [
        unique pg_database_datname_index 2671 (datname),
        pkey pg_database_oid_index 2672 (oid),
    ]
    shared pg_db_role_setting 2964 {
        setdatabase: OID req, setrole: OID req, setconfig: TEXT_ARRAY opt,
    } [
        pkey pg_db_role_setting_databaseid_rol_index 2965 (setdatabase setrole),
    ]
    heap pg_default_acl 826 {
        oid: OID req, defaclrole: OID req, defaclnamespace: OID req, defaclobjtype: CHAR req,
        defaclacl: ACLITEM_ARRAY req,
    } [
        unique pg_default_acl_role_nsp_obj_index 827 (defaclrole defaclnamespace defaclobjtype),
        pkey pg_default_acl_oid_index 828 (oid),
    ]
    heap pg_depend 2608 {
        classid: OID req, objid: OID req, objsubid: INT4 req, refclassid: OID req, refobjid: OID req,
        refobjsubid: INT4 req, deptype: CHAR req,
    } [
        plain pg_depend_depender_index 2673 (classid objid objsubid),
        plain pg_depend_reference_index 2674 (refclassid refobjid refobjsubid),
    ]
    heap pg_description 2609 {
        objoid: OID req, classoid: OID req, objsubid: INT4 req, description: TEXT req,
    } [
        pkey pg_description_o_c_o_index 2675 (objoid classoid objsubid),
    ]
    heap pg_enum 3501 {
        oid: OID req, enumtypid: OID req, enumsortorder: FLOAT4 req, enumlabel: NAME req,
    } [
        pkey pg_enum_oid_index 3502 (oid),
        unique pg_enum_typid_label_index 3503 (enumtypid enumlabel),
        unique pg_enum_typid_sortorder_index 3534 (enumtypid enumsortorder),
    ]
    heap pg_event_trigger 3466 {
        oid: OID req, evtname: NAME req, evtevent: NAME req, evtowner: OID req, evtfoid: OID req,
        evtenabled: CHAR req, evttags: TEXT_ARRAY opt,
    } [
        unique pg_event_trigger_evtname_index 3467 (evtname),
        pkey pg_event_trigger_oid_index 3468 (oid),
    ]
    heap pg_extension 3079 {
        oid: OID req, extname: NAME req, extowner: OID req, extnamespace: OID req, extrelocatable: BOOL req,
        extversion: TEXT req, extconfig: OID_ARRAY opt, extcondition: TEXT_ARRAY opt,
    } [
        pkey pg_extension_oid_index 3080 (oid),
        unique pg_extension_name_index 3081 (extname),
    ]
    heap pg_foreign_data_wrapper 2328 {
        oid: OID req, fdwname: NAME req, fdwowner: OID req, fdwhandler: OID req, fdwvalidator: OID req,
        fdwacl: ACLITEM_ARRAY opt, fdwoptions: TEXT_ARRAY opt,
    } [
        pkey pg_foreign_data_wrapper_oid_index 112 (oid),
        unique pg_foreign_data_wrapper_name_index 548 (fdwname),
    ]
    heap pg_foreign_server 1417 {
        oid: OID req, srvname: NAME req, srvowner: OID req, srvfdw: OID req, srvtype: TEXT opt, srvversion: TEXT opt,
        srvacl: ACLITEM_ARRAY opt, srvoptions: TEXT_ARRAY opt,
    } [
        pkey pg_foreign_server_oid_index 113 (oid),
        unique pg_foreign_server_name_index 549 (srvname),
    ]
    heap pg_foreign_table 3118 {
        ftrelid: OID req, ftserver: OID req, ftoptions: TEXT_ARRAY opt,
    } [
        pkey pg_foreign_table_relid_index 3119 (ftrelid),
    ]
    heap pg_index 2610 {
        indexrelid: OID req, indrelid: OID req, indnatts: INT2 req, indnkeyatts: INT2 req, indisunique: BOOL req,
        indnullsnotdistinct: BOOL req, indisprimary: BOOL req, indisexclusion: BOOL req, indimmediate: BOOL req,
        indisclustered: BOOL req, indisvalid: BOOL req, indcheckxmin: BOOL req, indisready: BOOL req,
        indislive: BOOL req, indisreplident: BOOL req, indkey: INT2VECTOR req, indcollation: OIDVECTOR req,
        indclass: OIDVECTOR req, indoption: INT2VECTOR req, indexprs: PG_NODE_TREE opt, indpred: PG_NODE_TREE opt,
    } [
        plain pg_index_indrelid_index 2678 (indrelid),
        pkey pg_index_indexrelid_index 2679 (indexrelid),
    ]
    heap pg_inherits 2611 {
        inhrelid: OID req, inhparent: OID req, inhseqno: INT4 req, inhdetachpending: BOOL req,
    } [
        pkey pg_inherits_relid_seqno_index 2680 (inhrelid inhseqno),
        plain pg_inherits_parent_index 2187 (inhparent),
    ]
    heap pg_init_privs 3394 {
        objoid: OID req, classoid: OID req, objsubid: INT4 req, privtype: CHAR req, initprivs: ACLITEM_ARRAY req,
    } [
        pkey pg_init_privs_o_c_o_index 3395 (objoid classoid objsubid),
    ]
    virtual pg_language 2612 {
        oid: OID req, lanname: NAME req, lanowner: OID req, lanispl: BOOL req, lanpltrusted: BOOL req,
        lanplcallfoid: OID req, laninline: OID req, lanvalidator: OID req, lanacl: ACLITEM_ARRAY opt,
    } [
        unique pg_language_name_index 2681 (lanname),
        pkey pg_language_oid_index 2682 (oid),
    ]
    heap pg_largeobject 2613 {
        loid: OID req, pageno: INT4 req, data: BYTEA req,
    } [
        pkey pg_largeobject_loid_pn_index 2683 (loid pageno),
    ]
    heap pg_largeobject_metadata 2995 {
        oid: OID req, lomowner: OID req, lomacl: ACLITEM_ARRAY opt,
    } [
        pkey pg_largeobject_metadata_oid_index 2996 (oid),
    ]
    heap pg_namespace 2615 {
        oid: OID req, nspname: NAME req, nspowner: OID req, nspacl: ACLITEM_ARRAY opt,
    } [
        unique pg_namespace_nspname_index 2684 (nspname),
        pkey pg_namespace_oid_index 2685 (oid),
    ]
    virtual pg_opclass 2616 {
        oid: OID req, opcmethod: OID req, opcname: NAME req, opcnamespace: OID req, opcowner: OID req,
        opcfamily: OID req, opcintype: OID req, opcdefault: BOOL req, opckeytype: OID req,
    } [
        unique pg_opclass_am_name_nsp_index 2686 (opcmethod opcname opcnamespace),
        pkey pg_opclass_oid_index 2687 (oid),
    ]
    virtual pg_operator 2617 {
        oid: OID req, oprname: NAME req, oprnamespace: OID req, oprowner: OID req, oprkind: CHAR req,
        oprcanmerge: BOOL req, oprcanhash: BOOL req, oprleft: OID req, oprright: OID req, oprresult: OID req,
        oprcom: OID req, oprnegate: OID req, oprcode: REGPROC req, oprrest: REGPROC req, oprjoin: REGPROC req,
    } [
        pkey pg_operator_oid_index 2688 (oid),
        unique pg_operator_oprname_l_r_n_index 2689 (oprname oprleft oprright oprnamespace),
    ]
    virtual pg_opfamily 2753 {
        oid: OID req, opfmethod: OID req, opfname: NAME req, opfnamespace: OID req, opfowner: OID req,
    } [
        unique pg_opfamily_am_name_nsp_index 2754 (opfmethod opfname opfnamespace),
        pkey pg_opfamily_oid_index 2755 (oid),
    ]
    shared pg_parameter_acl 6243 {
        oid: OID req, parname: TEXT req, paracl: ACLITEM_ARRAY opt,
    } [
        unique pg_parameter_acl_parname_index 6246 (parname),
        pkey pg_parameter_acl_oid_index 6247 (oid),
    ]
    heap pg_partitioned_table 3350 {
        partrelid: OID req, partstrat: CHAR req, partnatts: INT2 req, partdefid: OID req, partattrs: INT2VECTOR req,
        partclass: OIDVECTOR req, partcollation: OIDVECTOR req, partexprs: PG_NODE_TREE opt,
    } [
        pkey pg_partitioned_table_partrelid_index 3351 (partrelid),
    ]
    heap pg_policy 3256 {
        oid: OID req, polname: NAME req, polrelid: OID req, polcmd: CHAR req, polpermissive: BOOL req,
        polroles: OID_ARRAY req, polqual: PG_NODE_TREE opt, polwithcheck: PG_NODE_TREE opt,
    } [
        pkey pg_policy_oid_index 3257 (oid),
        unique pg_policy_polrelid_polname_index 3258 (polrelid polname),
    ]
    heap afterimage_function_acl 9100 {
        funcoid: OID req, funcacl: ACLITEM_ARRAY req,
    } [
        pkey afterimage_function_acl_funcoid_index 9101 (funcoid),
    ]
    heap afterimage_large_value 9108 {
        chunk_id: OID req, chunk_seq: INT4 req, chunk_data: BYTEA req,
    } [
        pkey afterimage_large_value_index 9109 (chunk_id chunk_seq),
    ]
    mixed pg_proc 1255 {
        oid: OID req, proname: NAME req, pronamespace: OID req, proowner: OID req, prolang: OID req,
        procost: FLOAT4 req, prorows: FLOAT4 req, provariadic: OID req, prosupport: REGPROC req, prokind: CHAR req,
        prosecdef: BOOL req, proleakproof: BOOL req, proisstrict: BOOL req, proretset: BOOL req,
        provolatile: CHAR req, proparallel: CHAR req, pronargs: INT2 req, pronargdefaults: INT2 req,
        prorettype: OID req, proargtypes: OIDVECTOR req, proallargtypes: OID_ARRAY opt, proargmodes: CHAR_ARRAY opt,
        proargnames: TEXT_ARRAY opt, proargdefaults: PG_NODE_TREE opt, protrftypes: OID_ARRAY opt, prosrc: TEXT req,
        probin: TEXT opt, prosqlbody: PG_NODE_TREE opt, proconfig: TEXT_ARRAY opt, proacl: ACLITEM_ARRAY opt,
    } [
        pkey pg_proc_oid_index 2690 (oid),
        unique pg_proc_proname_args_nsp_index 2691 (proname proargtypes pronamespace),
    ]
    heap pg_publication 6104 {
        oid: OID req, pubname: NAME req, pubowner: OID req, puballtables: BOOL req, pubinsert: BOOL req,
        pubupdate: BOOL req, pubdelete: BOOL req, pubtruncate: BOOL req, pubviaroot: BOOL req,
    } [
        pkey pg_publication_oid_index 6110 (oid),
        unique pg_publication_pubname_index 6111 (pubname),
    ]
    heap pg_publication_namespace 6237 {
        oid: OID req, pnpubid: OID req, pnnspid: OID req,
    } [
        pkey pg_publication_namespace_oid_index 6238 (oid),
        unique pg_publication_namespace_pnnspid_pnpubid_index 6239 (pnnspid pnpubid),
    ]
    heap pg_publication_rel 6106 {
        oid: OID req, prpubid: OID req, prrelid: OID req, prqual: PG_NODE_TREE opt, prattrs: INT2VECTOR opt,
    } [
        pkey pg_publication_rel_oid_index 6112 (oid),
        unique pg_publication_rel_prrelid_prpubid_index 6113 (prrelid prpubid),
        plain pg_publication_rel_prpubid_index 6116 (prpubid),
    ]
    virtual pg_range 3541 {
        rngtypid: OID req, rngsubtype: OID req, rngmultitypid: OID req, rngcollation: OID req, rngsubopc: OID req,
        rngcanonical: REGPROC req, rngsubdiff: REGPROC req,
    } [
        pkey pg_range_rngtypid_index 3542 (rngtypid),
        unique pg_range_rngmultitypid_index 2228 (rngmultitypid),
    ]
    shared pg_replication_origin 6000 {
        roident: OID req, roname: TEXT req,
    } [
        pkey pg_replication_origin_roiident_index 6001 (roident),
        unique pg_replication_origin_roname_index 6002 (roname),
    ]
    heap pg_rewrite 2618 {
        oid: OID req, rulename: NAME req, ev_class: OID req, ev_type: CHAR req, ev_enabled: CHAR req,
        is_instead: BOOL req, ev_qual: PG_NODE_TREE req, ev_action: PG_NODE_TREE req,
    } [
        pkey pg_rewrite_oid_index 2692 (oid),
        unique pg_rewrite_rel_rulename_index 2693 (ev_class rulename),
    ]
    heap pg_seclabel 3596 {
        objoid: OID req, classoid: OID req, objsubid: INT4 req, provider: TEXT req, label: TEXT req,
    } [
        pkey pg_seclabel_object_index 3597 (objoid classoid objsubid provider),
    ]
    heap pg_sequence 2224 {
        seqrelid: OID req, seqtypid: OID req, seqstart: INT8 req, seqincrement: INT8 req, seqmax: INT8 req,
        seqmin: INT8 req, seqcache: INT8 req, seqcycle: BOOL req,
    } [
        pkey pg_sequence_seqrelid_index 5002 (seqrelid),
    ]
    shared pg_shdepend 1214 {
        dbid: OID req, classid: OID req, objid: OID req, objsubid: INT4 req, refclassid: OID req, refobjid: OID req,
        deptype: CHAR req,
    } [
        plain pg_shdepend_depender_index 1232 (dbid classid objid objsubid),
        plain pg_shdepend_reference_index 1233 (refclassid refobjid),
    ]
    shared pg_shdescription 2396 {
        objoid: OID req, classoid: OID req, description: TEXT req,
    } [
        pkey pg_shdescription_o_c_index 2397 (objoid classoid),
    ]
    shared pg_shseclabel 3592 {
        objoid: OID req, classoid: OID req, provider: TEXT req, label: TEXT req,
    } [
        pkey pg_shseclabel_object_index 3593 (objoid classoid provider),
    ]
    heap pg_statistic 2619 {
        starelid: OID req, staattnum: INT2 req, stainherit: BOOL req, stanullfrac: FLOAT4 req, stawidth: INT4 req,
        stadistinct: FLOAT4 req, stakind1: INT2 req, stakind2: INT2 req, stakind3: INT2 req, stakind4: INT2 req,
        stakind5: INT2 req, staop1: OID req, staop2: OID req, staop3: OID req, staop4: OID req, staop5: OID req,
        stacoll1: OID req, stacoll2: OID req, stacoll3: OID req, stacoll4: OID req, stacoll5: OID req,
        stanumbers1: FLOAT4_ARRAY opt, stanumbers2: FLOAT4_ARRAY opt, stanumbers3: FLOAT4_ARRAY opt,
        stanumbers4: FLOAT4_ARRAY opt, stanumbers5: FLOAT4_ARRAY opt, stavalues1: ANYARRAY opt,
        stavalues2: ANYARRAY opt, stavalues3: ANYARRAY opt, stavalues4: ANYARRAY opt, stavalues5: ANYARRAY opt,
    } [
        pkey pg_statistic_relid_att_inh_index 2696 (starelid staattnum stainherit),
    ]
    heap pg_statistic_ext 3381 {
        oid: OID req, stxrelid: OID req, stxname: NAME req, stxnamespace: OID req, stxowner: OID req,
        stxstattarget: INT4 req, stxkeys: INT2VECTOR req, stxkind: CHAR_ARRAY req, stxexprs: PG_NODE_TREE opt,
    } [
        pkey pg_statistic_ext_oid_index 3380 (oid),
        unique pg_statistic_ext_name_index 3997 (stxname stxnamespace),
        plain pg_statistic_ext_relid_index 3379 (stxrelid),
    ]
    heap pg_statistic_ext_data 3429 {
        stxoid: OID req, stxdinherit: BOOL req, stxdndistinct: PG_NDISTINCT opt,
        stxddependencies: PG_DEPENDENCIES opt, stxdmcv: PG_MCV_LIST opt, stxdexpr: RECORD_ARRAY opt,
    } [
        pkey pg_statistic_ext_data_stxoid_inh_index 3433 (stxoid stxdinherit),
    ]
    shared pg_subscription 6100 {
        oid: OID req, subdbid: OID req, subskiplsn: PG_LSN req, subname: NAME req, subowner: OID req,
        subenabled: BOOL req, subbinary: BOOL req, substream: BOOL req, subtwophasestate: CHAR req,
        subdisableonerr: BOOL req, subconninfo: TEXT req, subslotname: NAME opt, subsynccommit: TEXT req,
        subpublications: TEXT_ARRAY req,
    } [
        pkey pg_subscription_oid_index 6114 (oid),
        unique pg_subscription_subname_index 6115 (subdbid subname),
    ]
    heap pg_subscription_rel 6102 {
        srsubid: OID req, srrelid: OID req, srsubstate: CHAR req, srsublsn: PG_LSN opt,
    } [
        pkey pg_subscription_rel_srrelid_srsubid_index 6117 (srrelid srsubid),
    ]
    shared pg_tablespace 1213 {
        oid: OID req, spcname: NAME req, spcowner: OID req, spcacl: ACLITEM_ARRAY opt, spcoptions: TEXT_ARRAY opt,
    } [
        pkey pg_tablespace_oid_index 2697 (oid),
        unique pg_tablespace_spcname_index 2698 (spcname),
    ]
    heap pg_transform 3576 {
        oid: OID req, trftype: OID req, trflang: OID req, trffromsql: REGPROC req, trftosql: REGPROC req,
    } [
        pkey pg_transform_oid_index 3574 (oid),
        unique pg_transform_type_lang_index 3575 (trftype trflang),
    ]
    heap pg_trigger 2620 {
        oid: OID req, tgrelid: OID req, tgparentid: OID req, tgname: NAME req, tgfoid: OID req, tgtype: INT2 req,
        tgenabled: CHAR req, tgisinternal: BOOL req, tgconstrrelid: OID req, tgconstrindid: OID req,
        tgconstraint: OID req, tgdeferrable: BOOL req, tginitdeferred: BOOL req, tgnargs: INT2 req,
        tgattr: INT2VECTOR req, tgargs: BYTEA req, tgqual: PG_NODE_TREE opt, tgoldtable: NAME opt,
        tgnewtable: NAME opt,
    } [
        plain pg_trigger_tgconstraint_index 2699 (tgconstraint),
        unique pg_trigger_tgrelid_tgname_index 2701 (tgrelid tgname),
        pkey pg_trigger_oid_index 2702 (oid),
    ]
    virtual pg_ts_config 3602 {
        oid: OID req, cfgname: NAME req, cfgnamespace: OID req, cfgowner: OID req, cfgparser: OID req,
    } [
        unique pg_ts_config_cfgname_index 3608 (cfgname cfgnamespace),
        pkey pg_ts_config_oid_index 3712 (oid),
    ]
    virtual pg_ts_config_map 3603 {
        mapcfg: OID req, maptokentype: INT4 req, mapseqno: INT4 req, mapdict: OID req,
    } [
        pkey pg_ts_config_map_index 3609 (mapcfg maptokentype mapseqno),
    ]
    virtual pg_ts_dict 3600 {
        oid: OID req, dictname: NAME req, dictnamespace: OID req, dictowner: OID req, dicttemplate: OID req,
        dictinitoption: TEXT opt,
    } [
        unique pg_ts_dict_dictname_index 3604 (dictname dictnamespace),
        pkey pg_ts_dict_oid_index 3605 (oid),
    ]
    virtual pg_ts_parser 3601 {
        oid: OID req, prsname: NAME req, prsnamespace: OID req, prsstart: REGPROC req, prstoken: REGPROC req,
        prsend: REGPROC req, prsheadline: REGPROC req, prslextype: REGPROC req,
    } [
        unique pg_ts_parser_prsname_index 3606 (prsname prsnamespace),
        pkey pg_ts_parser_oid_index 3607 (oid),
    ]
    virtual pg_ts_template 3764 {
        oid: OID req, tmplname: NAME req, tmplnamespace: OID req, tmplinit: REGPROC req, tmpllexize: REGPROC req,
    } [
        unique pg_ts_template_tmplname_index 3766 (tmplname tmplnamespace),
        pkey pg_ts_template_oid_index 3767 (oid),
    ]
    virtual pg_type 1247 {
        oid: OID req, typname: NAME req, typnamespace: OID req, typowner: OID req, typlen: INT2 req,
        typbyval: BOOL req, typtype: CHAR req, typcategory: CHAR req, typispreferred: BOOL req,
        typisdefined: BOOL req, typdelim: CHAR req, typrelid: OID req, typsubscript: REGPROC req, typelem: OID req,
        typarray: OID req, typinput: REGPROC req, typoutput: REGPROC req, typreceive: REGPROC req,
        typsend: REGPROC req, typmodin: REGPROC req, typmodout: REGPROC req, typanalyze: REGPROC req,
        typalign: CHAR req, typstorage: CHAR req, typnotnull: BOOL req, typbasetype: OID req, typtypmod: INT4 req,
        typndims: INT4 req, typcollation: OID req, typdefaultbin: PG_NODE_TREE opt, typdefault: TEXT opt,
        typacl: ACLITEM_ARRAY opt,
    } [
        pkey pg_type_oid_index 2703 (oid),
        unique pg_type_typname_nsp_index 2704 (typname typnamespace),
    ]
    heap pg_user_mapping 1418 {
        oid: OID req, umuser: OID req, umserver: OID req, umoptions: TEXT_ARRAY opt,
    } [
        pkey pg_user_mapping_oid_index 174 (oid),
        unique pg_user_mapping_user_server_index 175 (umuser umserver),
    ]
}
