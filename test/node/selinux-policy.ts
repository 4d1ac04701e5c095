import type { Node } from './node.ts';

const CATEGORIES = Array.from({ length: 1024 }, (_, i) => `c${i}`);

/**
 * A policy of two rules in secilc's language: a container reads everything of its own level and below, and writes
 * files of the type `container_file_t` only. Classes and permissions that are not named are allowed to all; the
 * kernel takes no policy without those of processes, and relabels what is of a class that is named.
 */
const POLICY = `
(handleunknown allow)
(mls true)
(policycap nnp_nosuid_transition)
(class process (transition dyntransition))
(class file (read write))
(class dir (reparent))
(class lnk_file (lock))
(classorder (unordered process file dir lnk_file))
(sid kernel) (sid security) (sid unlabeled) (sid fs) (sid file)
(sidorder (kernel security unlabeled fs file))
(sensitivity s0)
(sensitivityorder (s0))
${CATEGORIES.map((name) => `(category ${name})`).join('\n')}
(categoryorder (${CATEGORIES.join(' ')}))
(sensitivitycategory s0 (range c0 c1023))
(level low (s0))
(level high (s0 (range c0 c1023)))
(levelrange all (low high))
(user system_u) (userrole system_u system_r) (userrole system_u object_r)
(userlevel system_u low) (userrange system_u all)
(role system_r) (role object_r)
(type node_t) (type container_t) (type spc_t) (type node_file_t) (type container_file_t)
(roletype system_r node_t) (roletype system_r container_t) (roletype system_r spc_t)
(roletype object_r node_file_t) (roletype object_r container_file_t)
(context node (system_u system_r node_t all))
(context files (system_u object_r node_file_t (low low)))
(sidcontext kernel node) (sidcontext unlabeled files) (sidcontext fs files) (sidcontext file files)
(fsuse xattr ext4 files) (fsuse xattr overlay files) (fsuse trans tmpfs files) (fsuse trans devpts files)
(fsuse trans mqueue files)
(typeattribute anything) (typeattributeset anything (all))
(typeattribute unconfined) (typeattributeset unconfined (node_t spc_t))
(allow unconfined anything (process (transition)))
(allow unconfined anything (file (read write)))
(allow container_t anything (file (read)))
(allow container_t container_file_t (file (write)))
(allow anything anything (dir (reparent)))
(allow anything anything (lnk_file (lock)))
(mlsconstrain (file (read write)) (dom h1 h2))
`;

/** Gives a node that was booted with `security=selinux` a policy, which stays permissive until it is told to enforce. */
export async function loadPolicy(node: Node): Promise<void> {
  await node.sh('mkdir -p /etc/selinux/test/contexts');
  await node.write('/etc/selinux/config', 'SELINUX=permissive\nSELINUXTYPE=test\n');
  await node.write(
    '/etc/selinux/test/contexts/lxc_contexts',
    'process = "system_u:system_r:container_t:s0"\nfile = "system_u:object_r:container_file_t:s0"\n',
  );
  await node.write('/tmp/policy.cil', POLICY);
  await node.sh(
    `cd /tmp && secilc -c 33 -o policy -f /dev/null policy.cil && cat policy >/sys/fs/selinux/load`,
  );
}
