\pset format unaligned
\pset tuples_only on
\pset fieldsep '\t'
\pset null ''
\o proc.tsv
select p.oid, proname, prokind, proisstrict::int, provolatile, proparallel, proretset::int, proleakproof::int, procost, prorows, provariadic, prosupport::oid, prolang, prorettype, array_to_string(proargtypes::oid[],' '), array_to_string(proallargtypes,' '), array_to_string(proargmodes,''), array_to_string(proargnames,' '), pronargdefaults, coalesce(pg_get_expr(proargdefaults,0),''), case when prolang=14 then '@'||array_to_string(proargtypes::oid[],',') when prosrc=proname then '' else prosrc end from pg_proc p where oid<12000 order by p.oid;
\o type.tsv
select oid, typname, typlen, typbyval::int, typtype, typcategory, typispreferred::int, typdelim, typrelid, typsubscript::oid, typelem, typarray, typinput::oid, typoutput::oid, typreceive::oid, typsend::oid, typmodin::oid, typmodout::oid, typanalyze::oid, typalign, typstorage, typcollation from pg_type where oid<12000 and typrelid=0 order by oid;
\o operator.tsv
select oid, oprname, oprkind, oprcanmerge::int, oprcanhash::int, oprleft, oprright, oprresult, oprcom, oprnegate, oprcode::oid, oprrest::oid, oprjoin::oid from pg_operator where oid<12000 order by oid;
\o cast.tsv
select castsource, casttarget, castfunc, castcontext, castmethod from pg_cast order by 1,2;
\o aggregate.tsv
select aggfnoid::oid, aggkind, aggnumdirectargs, aggtransfn::oid, aggfinalfn::oid, aggcombinefn::oid, aggserialfn::oid, aggdeserialfn::oid, aggmtransfn::oid, aggminvtransfn::oid, aggmfinalfn::oid, aggfinalextra::int, aggmfinalextra::int, aggfinalmodify, aggmfinalmodify, aggsortop, aggtranstype, aggtransspace, aggmtranstype, aggmtransspace, agginitval, aggminitval from pg_aggregate order by 1;
\o amop.tsv
select amopmethod, amopfamily, amoplefttype, amoprighttype, amopstrategy, amoppurpose, amopopr, amopsortfamily from pg_amop where amopmethod in (403,405) order by 1,2,3,4,5;
\o amproc.tsv
select a.opfmethod, amprocfamily, amproclefttype, amprocrighttype, amprocnum, amproc::oid from pg_amproc p join pg_opfamily a on a.oid=amprocfamily where opfmethod in (403,405) order by 1,2,3,4,5;
\o opclass.tsv
select oid, opcmethod, opcname, opcfamily, opcintype, opcdefault::int, opckeytype from pg_opclass where oid<16384 order by oid;
\o opfamily.tsv
select oid, opfmethod, opfname from pg_opfamily order by oid;
\o
