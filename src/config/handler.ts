import type { Config, RuntimeConfig } from './schema.ts';

/** The configuration of a runtime handler; the empty name is the default one's. */
export function handlerConfig(config: Config, handler: string): RuntimeConfig | undefined {
  return config.runtimes[handler === '' ? config.default_runtime : handler];
}
